"""Attention by cuDNN's kernel for NVIDIA GPUs, entered through JAX's function.

It is told the lengths of rows, and never given a mask, of which JAX would make
a bias and compute its gradient.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from encdec import sharding
from encdec.layers.kernels import fused
from encdec.layers.kernels.facts import AttentionDropout, AttentionFacts
from encdec.layers.kernels.xla import drop_values
from encdec.types import AttentionMask, RowLayout

# On every generation that has the kernel.
_WIDEST_HEAD = 128


_CUDNN = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")


class CudnnAttention:
  """cuDNN's attention to rows of one text each, padded at the end."""

  def __init__(self, kernel: Callable[..., Any] = _CUDNN):
    """Takes another kernel in the place of cuDNN's: tests run anywhere."""
    self._kernel = kernel

  def refuses(self, facts: AttentionFacts) -> str | None:
    if facts.platform != "gpu":
      return "it is a kernel for NVIDIA GPUs"
    if facts.dtype not in ("bfloat16", "float16"):
      return f"it computes in bfloat16 or float16, not in {facts.dtype}"
    width = facts.query_shape[3]
    if width % 8 or width > _WIDEST_HEAD:
      return (
        f"heads are {width} wide, and it takes multiples of 8 up to "
        f"{_WIDEST_HEAD}"
      )
    if facts.softcap:
      return "it does not cap logits"
    if facts.window != (None, None):
      return "it has no windows"
    if facts.causal and facts.query_shape[1] != facts.key_shape[1]:
      return "its causal order is of a row's own keys"
    if facts.row_layout == RowLayout.PACKED:
      return "rows hold several texts, and it is told the length of one"
    if facts.row_layout != RowLayout.SINGLE and facts.segments:
      return (
        "nothing promises that padding stands at the end of a row alone "
        "(`row_layout` of the module)"
      )
    return fused.refuses(facts) or self._missing()

  def _missing(self) -> str | None:
    return _missing() if self._kernel is _CUDNN else None

  def auto_skips(self, facts: AttentionFacts) -> str | None:
    del facts
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
    softcap: None,
    sinks: None,
    dropout: AttentionDropout | None,
    return_weights: bool,
  ) -> tuple[Float[Array, "B T H K"], None]:
    # All but the platform are refused.
    del platform, bias, softcap, sinks, return_weights
    if dropout is not None:
      v = drop_values(v, dropout)
    attend = functools.partial(self._attend, scale=scale, causal=mask.causal)
    out = fused.by_shard(attend, q, k, v, fused.segments(mask), rules)
    return checkpoint_name(out, "ctx"), None

  def _attend(
    self,
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G K"],
    segments: tuple[Int[Array, "B ..."], ...],
    kept: None,
    *,
    scale: float,
    causal: bool,
  ) -> Float[Array, "B T H K"]:
    del kept  # Values come without those that dropout takes.
    kernel = functools.partial(self._kernel, scale=scale, is_causal=causal)
    if not segments:
      return kernel(q, k, v, query_seq_lengths=None, key_value_seq_lengths=None)
    of_query, of_key = (ids != 0 for ids in segments)
    # What the kernel does beyond a row's length, forward or backward, is its
    # own affair: cleared here, it reaches neither output nor gradient.
    out = kernel(
      _clear(q, of_query),
      _clear(k, of_key),
      _clear(v, of_key),
      query_seq_lengths=_lengths(of_query),
      key_value_seq_lengths=_lengths(of_key),
    )
    return _clear(out, of_query)


def _clear(
  x: Float[Array, "B T H K"], real: Bool[Array, "B T"]
) -> Float[Array, "B T H K"]:
  return jnp.where(real[..., None, None], x, jnp.zeros((), x.dtype))


def _lengths(real: Bool[Array, "B T"]) -> Int[Array, "B"]:
  """At least 1, of cleared entries: a softmax over nothing is not finite."""
  return jnp.maximum(jnp.sum(real, axis=1, dtype=jnp.int32), 1)


@functools.cache
def _missing() -> str | None:
  """What JAX says that cuDNN's kernel lacks where programs are traced.

  JAX asks the machine that traces, whatever it traces for: a program for GPUs
  that are elsewhere cannot have this kernel.
  """
  x = jax.ShapeDtypeStruct((1, 8, 1, 8), jnp.bfloat16)
  try:
    jax.eval_shape(_CUDNN, x, x, x)
  except (RuntimeError, NotImplementedError) as error:
    return f"JAX cannot trace it here: {error}"
  return None
