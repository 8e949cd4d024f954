"""Attention by JAX's Pallas kernel for TPUs, "splash".

Neither its forward nor its backward pass writes the logits out. On a CPU it
runs interpreted, for tests.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as kernel_lib,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask as mask_lib,
)
from jaxtyping import Array, Float, Int

from encdec import sharding
from encdec.layers.kernels import fused
from encdec.layers.kernels.facts import AttentionDropout, AttentionFacts
from encdec.layers.kernels.xla import drop_values
from encdec.masks import dense_mask
from encdec.types import AttentionMask

# The kernel takes rows by tiles of so many tokens.
_TILE = 128
# Float32 logits of 512 x 512 are 1 MB: the backward pass holds four such blocks
# and the operands twice in the 16 MB of a core's fast memory. Longer blocks do
# not fit, shorter ones start the kernel's body more often for as much work.
_LONGEST_BLOCK = 512


class SplashAttention:
  """Splash attention: segments, causality and windows by the index."""

  def refuses(self, facts: AttentionFacts) -> str | None:
    if facts.platform == "gpu":
      return "it is a kernel for TPUs"
    if facts.dtype not in ("float32", "bfloat16"):
      return f"it computes in float32 or bfloat16, not in {facts.dtype}"
    windowed = facts.window != (None, None)
    if windowed and facts.query_shape[1] != facts.key_shape[1]:
      return "its windows lie over a row's own keys"
    return fused.refuses(facts)

  def auto_skips(self, facts: AttentionFacts) -> str | None:
    return fused.skipped_on_tpus(facts)

  def __call__(
    self,
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G K"],
    mask: AttentionMask,
    *,
    scale: float,
    platform: str,
    rules: sharding.Rules | None,
    bias: None,
    softcap: float | None,
    sinks: None,
    dropout: AttentionDropout | None,
    return_weights: bool,
  ) -> tuple[Float[Array, "B T H K"], None]:
    del bias, sinks, return_weights  # Refused.
    if dropout is not None:
      v = drop_values(v, dropout)
    kernel = functools.partial(
      _attend,
      causal=mask.causal,
      window=mask.window,
      softcap=softcap,
      interpret=platform == "cpu",
    )
    segments = fused.segments(mask)
    q = q * jnp.asarray(scale, q.dtype)
    out = fused.by_shard(kernel, q, k, v, segments, rules)
    if segments:
      out = _clear_blind(out, mask, k.shape[1])
    return out, None


def _attend(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"],
  v: Float[Array, "B S G K"],
  segments: tuple[Int[Array, "B ..."], ...],
  kept: None,
  *,
  causal: bool,
  window: tuple[int | None, int | None],
  softcap: float | None,
  interpret: bool,
) -> Float[Array, "B T H K"]:
  """The kernel for each row, of lengths filled up to whole blocks."""
  del kept  # Values come without those that dropout takes.
  queries = q.shape[1]
  query_block, key_block = block_size(queries), block_size(k.shape[1])
  q, k, v, filled = fused.fill(q, k, v, segments, _filled)
  ids = kernel_lib.SegmentIds(*filled) if filled else None
  q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
  shape = (q.shape[2], k.shape[2])
  # One pass backward for queries, keys and values at once costs five products
  # of blocks in place of seven. It writes the queries' gradient for each block
  # of keys, and sums it rounded: where there are several, two passes it is.
  one_pass = shape[1] == key_block
  # Typed by JAX as what it is without `save_residuals` and with.
  kernel: Any = kernel_lib.make_splash_mha(
    mask_lib.MultiHeadMask([_mask(shape, causal, window)] * q.shape[1]),
    block_sizes=kernel_lib.BlockSizes(
      block_q=query_block,
      block_kv=key_block,
      block_q_dkv=query_block,
      block_kv_dkv=key_block,
      block_q_dq=None if one_pass else query_block,
      block_kv_dq=None if one_pass else key_block,
      use_fused_bwd_kernel=one_pass,
    ),
    head_shards=1,
    q_seq_shards=1,
    attn_logits_soft_cap=softcap,
    # The output and the logarithms of the softmax's sums: saved, the backward
    # pass does not run the forward kernel again.
    residual_checkpoint_name="ctx",
    interpret=interpret,
  )
  return jax.vmap(kernel)(q, k, v, ids)[:, :, :queries].swapaxes(1, 2)


def block_size(length: int) -> int:
  """The length of blocks: as few as may be, and as short as those few can."""
  blocks = -(-length // _LONGEST_BLOCK)
  return -(-length // (blocks * _TILE)) * _TILE


def _filled(length: int) -> int:
  block = block_size(length)
  return -(-length // block) * block


def _mask(
  shape: tuple[int, int], causal: bool, window: tuple[int | None, int | None]
) -> mask_lib.Mask:
  if window != (None, None):
    back, ahead = window
    return mask_lib.LocalMask(shape, (back, 0 if causal else ahead), 0)
  return mask_lib.CausalMask(shape) if causal else mask_lib.FullMask(shape)


def _clear_blind(
  out: Float[Array, "B T H K"], mask: AttentionMask, keys: int
) -> Float[Array, "B T H K"]:
  """Zeroes in place of the output of queries that see no key.

  The kernel's is finite, but its gradient is that of no function.
  """
  allowed = dense_mask(mask, out.shape[1], keys)
  assert allowed is not None, "there are segments"
  sees = jnp.any(allowed, axis=-1)[:, 0, :, None, None]
  return jnp.where(sees, out, jnp.zeros((), out.dtype))
