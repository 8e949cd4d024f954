"""Attention of short rows by a Pallas kernel of ours, for TPUs.

The kernels of JAX take an array `[B, H, T, K]`, which a TPU stores by tiles of
128 in the last axis: heads of width 64 take twice their memory, and the
projections write them transposed. This kernel reads and writes `[B, T, H K]`,
as the projections have it, 128 columns at a time: two heads of width 64 lie in
one tile. Products take the whole tile, with the columns of the other heads
zero, which costs a TPU nothing, since its products are 128 wide anyway.

A row's queries see all its keys at once: there are no blocks, no running
maximum, and the backward pass, which makes the softmax again, needs nothing of
the forward pass but q, k and v. On a CPU it runs interpreted, for tests.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from encdec import sharding
from encdec.layers.kernels import fused
from encdec.layers.kernels.facts import AttentionDropout, AttentionFacts
from encdec.layers.kernels.short_kernels import (
  Options,
  Rows,
  backward,
  forward,
)
from encdec.layers.kernels.xla import value_scales
from encdec.types import AttentionMask

_LANES = 128
# Float32 logits of 512 x 512 are 1 MB, and the backward pass holds several such
# arrays in the 16 MB of fast memory that a kernel gets.
_MOST_LOGITS = 512 * 512
# And it holds seven arrays of a tile of a row, which are fetched ahead.
_LARGEST_TILE = 512 * 1024


class ShortAttention:
  """All keys of a row at once: segments and causality by the index."""

  def refuses(self, facts: AttentionFacts) -> str | None:
    if facts.platform == "gpu":
      return "it is a kernel for TPUs"
    if facts.dtype not in ("float32", "bfloat16"):
      return f"it computes in float32 or bfloat16, not in {facts.dtype}"
    queries, heads, width = facts.query_shape[1:]
    keys, groups = facts.key_shape[1:3]
    if groups != heads:
      return f"it has as many key/value heads as heads, not {groups} to {heads}"
    if facts.window != (None, None) or facts.softcap:
      return "it has neither windows nor a soft cap"
    if _filled(queries) * _filled(keys) > _MOST_LOGITS:
      return f"{queries} queries x {keys} keys are no short rows"
    if reason := fused.refuses(facts):
      return reason
    heads //= facts.shards[1]
    tile = _tile(heads, width)
    if tile is None:
      return (
        f"a device's {heads} heads of width {width} fill no tiles of {_LANES}"
      )
    longest = max(_filled(queries), _filled(keys))
    if longest * tile * jnp.dtype(facts.dtype).itemsize > _LARGEST_TILE:
      return f"{longest} x {tile} of {facts.dtype} are too large a tile"
    return None

  def auto_skips(self, facts: AttentionFacts) -> str | None:
    return fused.skipped_on_tpus(facts)

  def __call__(
    self,
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S H K"],
    v: Float[Array, "B S H K"],
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
    del bias, softcap, sinks, return_weights  # Refused.
    kernel = functools.partial(
      _attend_filled,
      scale=scale,
      causal=mask.causal,
      interpret=platform == "cpu",
    )
    kept = None if dropout is None else value_scales(v, dropout)
    segments = fused.segments(mask)
    return fused.by_shard(kernel, q, k, v, segments, rules, kept), None


def _attend_filled(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S H K"],
  v: Float[Array, "B S H K"],
  segments: tuple[Int[Array, "B ..."], ...],
  kept: Float[Array, "B H S"] | None,
  *,
  scale: float,
  causal: bool,
  interpret: bool,
) -> Float[Array, "B T H K"]:
  """The kernel, of rows filled up to whole tiles."""
  shape, (heads, width) = q.shape, q.shape[2:]
  q, k, v, ids = fused.fill(q, k, v, segments, _filled)
  q, k, v = (x.reshape(*x.shape[:2], heads * width) for x in (q, k, v))
  tile = _tile(heads, width)
  assert tile is not None, "refused"
  if kept is not None:
    kept = fused.extend(kept, 2, k.shape[1] - kept.shape[2], 0.0)
    kept = kept.reshape(shape[0], -1, tile // width, k.shape[1])
  queries, keys = (x[:, None] for x in ids) if ids else (None, None)
  options = Options(width, tile, scale, causal, interpret)
  out = _attend(options, q, k, v, Rows(queries, keys, kept))
  out = checkpoint_name(out, "ctx")
  return out[:, : shape[1]].reshape(shape)


def _filled(length: int) -> int:
  return -(-length // _LANES) * _LANES


def _tile(heads: int, width: int) -> int | None:
  """Columns of whole heads that a kernel takes; None where none fit."""
  if heads * width <= _LANES:
    return heads * width
  if width % _LANES == 0:
    return width
  fits = _LANES % width == 0 and heads * width % _LANES == 0
  return _LANES if fits else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
  options: Options,
  q: Float[Array, "B T D"],
  k: Float[Array, "B S D"],
  v: Float[Array, "B S D"],
  rows: Rows,
) -> Float[Array, "B T D"]:
  return _call(forward, "short_fwd", options, (q, k, v), rows, (q,))[0]


def _attend_forward(options, q, k, v, rows):
  return _attend(options, q, k, v, rows), (q, k, v, rows)


def _attend_backward(options, saved, cotangent):
  q, k, v, rows = saved
  arrays = (q, k, v, cotangent)
  grads = _call(backward, "short_bwd", options, arrays, rows, (q, k, v))
  # Draws of dropout are not differentiated, segments have no gradient.
  kept = None if rows.kept is None else jnp.zeros_like(rows.kept)
  return *grads, Rows(None, None, kept)


_attend.defvjp(_attend_forward, _attend_backward)


def _call(
  kernel: Callable[..., None],
  name: str,
  options: Options,
  arrays: Sequence[Float[Array, "B ..."]],
  rows: Rows,
  outputs: Sequence[Float[Array, "B ..."]],
) -> Sequence[Float[Array, "B ..."]]:
  """Runs a kernel for each row and tile; `outputs` are like what it gives."""
  batch, _, columns = arrays[0].shape

  def tiles(x: Array) -> pl.BlockSpec:
    return pl.BlockSpec(
      (None, x.shape[1], options.tile), lambda row, tile: (row, 0, tile)
    )

  def whole(x: Array) -> pl.BlockSpec:
    return pl.BlockSpec((None, *x.shape[1:]), lambda row, tile: (row, 0, 0))

  def of_tile(x: Array) -> pl.BlockSpec:
    return pl.BlockSpec(
      (None, None, *x.shape[2:]), lambda row, tile: (row, tile, 0, 0)
    )

  specs: Any = (
    None if x is None else spec(x)
    for x, spec in zip(rows, (whole, whole, of_tile), strict=True)
  )
  return pl.pallas_call(
    functools.partial(kernel, options),
    grid=(batch, columns // options.tile),
    in_specs=[*map(tiles, arrays), Rows(*specs)],
    out_specs=[*map(tiles, outputs)],
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in outputs],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel")
    ),
    interpret=options.interpret,
    name=name,
  )(*arrays, rows)
