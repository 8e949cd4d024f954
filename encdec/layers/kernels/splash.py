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
# Segments of what rows are filled up with: unlike each other and all of data's.
_NO_QUERY, _NO_KEY = -1, -2


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
    if facts.platform != "tpu":
      return "other platforms than TPUs run it interpreted, for tests"
    if facts.key_shape[1] < _TILE:
      return f"it would fill rows up to {_TILE} keys"
    if not facts.rules:
      return (
        "without sharding rules it cannot tell whether arrays lie on several "
        "devices, where it has to be entered by shard"
      )
    return None

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
    segments = ()
    if mask.query_segments is not None and mask.key_segments is not None:
      segments = (mask.query_segments, mask.key_segments)
    q = q * jnp.asarray(scale, q.dtype)
    out = fused.by_shard(kernel, q, k, v, segments, rules)
    if segments:
      out = _clear_blind(out, mask, k.shape[1])
    return out, None


def _attend(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"],
  v: Float[Array, "B S G K"],
  *segments: Int[Array, "B ..."],
  causal: bool,
  window: tuple[int | None, int | None],
  softcap: float | None,
  interpret: bool,
) -> Float[Array, "B T H K"]:
  """The kernel for each row, of lengths filled up to whole blocks."""
  queries, keys = q.shape[1], k.shape[1]
  query_block, key_block = block_size(queries), block_size(keys)
  more_queries, more_keys = -queries % query_block, -keys % key_block
  if more_keys and not segments:
    ones = functools.partial(jnp.ones, dtype=jnp.int32)
    segments = ones(q.shape[:2]), ones(k.shape[:2])
  ids = None
  if segments:
    of_query, of_key = segments
    ids = kernel_lib.SegmentIds(
      _fill(of_query, more_queries, _NO_QUERY),
      _fill(of_key, more_keys, _NO_KEY),
    )
  q, k, v = (
    _fill(x, more, 0).swapaxes(1, 2)
    for x, more in ((q, more_queries), (k, more_keys), (v, more_keys))
  )
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


def _mask(
  shape: tuple[int, int], causal: bool, window: tuple[int | None, int | None]
) -> mask_lib.Mask:
  if window != (None, None):
    back, ahead = window
    return mask_lib.LocalMask(shape, (back, 0 if causal else ahead), 0)
  return mask_lib.CausalMask(shape) if causal else mask_lib.FullMask(shape)


def _fill(x: Array, more: int, value: int) -> Array:
  """Rows with `more` entries at their end."""
  width = ((0, 0), (0, more), *((0, 0),) * (x.ndim - 2))
  return jnp.pad(x, width, constant_values=value) if more else x


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
