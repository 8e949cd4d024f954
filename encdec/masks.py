"""Masks, positions and shifted inputs: pure functions of ids and segments."""

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from encdec import explicit_axes
from encdec.config import EncDecConfig
from encdec.types import AttentionMask, RowLayout


def dense_mask(
  mask: AttentionMask, queries: int, keys: int
) -> Bool[Array, "#B #H T S"] | None:
  """The mask written out, True where attention is allowed; None: everywhere."""
  parts = []
  if mask.query_segments is not None and mask.key_segments is not None:
    parts.append(
      mask.query_segments[:, None, :, None]
      == mask.key_segments[:, None, None, :]
    )
  if mask.causal or mask.window != (None, None):
    distance = _distance(mask, queries, keys)
    back, ahead = mask.window
    if mask.causal:
      parts.append(distance >= 0)
    if back is not None:
      parts.append(distance <= back)
    if ahead is not None:
      parts.append(distance >= -ahead)
  if mask.dense is not None:
    parts.append(mask.dense)
  return functools.reduce(jnp.logical_and, parts) if parts else None


def _distance(
  mask: AttentionMask, queries: int, keys: int
) -> Int[Array, "#B 1 T S"]:
  """Query position minus key position."""
  query = mask.query_positions
  if query is None:
    query = jnp.arange(queries, dtype=jnp.int32)[None]
  key = mask.key_positions
  if key is None:
    key = jnp.arange(keys, dtype=jnp.int32)[None]
  return query[:, None, :, None] - key[:, None, None, :]


def rows_mask(
  segments: Int[Array, "B T"],
  key_segments: Int[Array, "B S"],
  queries: Int[Array, "B T"] | None,
  layout: RowLayout,
  *,
  dense: Bool[Array, "B #H T S"] | None = None,
  causal: bool = False,
) -> AttentionMask:
  """The mask of whole rows, which tokens of equal segments may see.

  Args:
    queries: segments that tokens have as queries alone, in place of `segments`;
      they follow no layout.
    layout: of `segments` and `key_segments`.
  """
  if queries is not None:
    segments, layout = queries, RowLayout.ANY
  return AttentionMask(
    query_segments=segments,
    key_segments=key_segments,
    dense=dense,
    causal=causal,
    row_layout=layout,
  )


def prompt_mask(
  segments: Int[Array, "B P"], cache_length: int
) -> Bool[Array, "B P C"]:
  """The slots of a cache that each token of a prompt sees, causally."""
  length = segments.shape[1]
  real = jnp.pad(segments != 0, ((0, 0), (0, cache_length - length)))
  query = jnp.arange(length, dtype=jnp.int32)[:, None]
  causal = jnp.arange(cache_length, dtype=jnp.int32)[None] <= query
  return causal[None] & real[:, None]


def shift_right(
  targets: Int[Array, "B T"], start_token: int
) -> Int[Array, "B T"]:
  """Decoder inputs: the start token, then the targets but the last."""
  start = jnp.full_like(targets[:, :1], start_token)
  return jnp.concatenate([start, targets[:, :-1]], axis=1)


def token_positions(
  tokens: Any, unplaced: int | None, index: Any = None, past: Any = 0
) -> Any:
  """Each token's position in its text, `[B, T]` int32, as the model counts.

  That is its index, unless there is an id that takes no position: such a token
  is at -1, the row of the table before the first, and the others are counted
  over those that are not.

  Args:
    tokens: ids `[B, T]`, JAX's or numpy's; so are the positions.
    unplaced: `StackConfig.unplaced_token`.
    index: of each token in its text, `[B, T]`, where a row holds several; by
      default a row is one text.
    past: positions that were taken before, of all rows or `[B, 1]`.
  """
  arrays = tokens, index, past
  xp: Any = jnp if any(isinstance(array, Array) for array in arrays) else np
  column = xp.broadcast_to(
    xp.arange(tokens.shape[1], dtype=np.int32)[None], tokens.shape
  )
  if unplaced is None:
    return (column if index is None else index) + past
  placed = (tokens != unplaced).astype(np.int32)
  count = xp.cumsum(placed, axis=1, dtype=np.int32)
  if index is not None:
    # Of the row's texts before.
    first = xp.maximum(column - index, 0)
    count = count - xp.take_along_axis(count - placed, first, axis=1)
  return (count + past) * placed - 1


def last_positions(
  tokens: Int[Array, "B N C"], length: Int[Array, "B"], unplaced: int | None
) -> Int[Array, "B N"]:
  """`token_positions` of the last of each text's first `length` tokens."""
  if unplaced is None:
    return jnp.broadcast_to(length[:, None] - 1, tokens.shape[:2])
  column = jnp.arange(tokens.shape[2], dtype=jnp.int32)[None, None]
  last = length[:, None, None] - 1
  placed = tokens != unplaced
  count = jnp.sum(placed & (column <= last), axis=-1, dtype=jnp.int32)
  own = jnp.any(placed & (column == last), axis=-1)
  return jnp.where(own, count, 0) - 1


def count_positions(
  batch: Mapping[str, Any], config: EncDecConfig
) -> dict[str, Any]:
  """A batch of data with its positions as the model counts them.

  In data they are the index of each token in its text, whatever its id.

  Raises:
    ValueError: a field is split over an axis of type Explicit.
  """
  explicit_axes.check(batch)
  positions = {
    f"{side}_positions": token_positions(
      batch[tokens], stack.unplaced_token, batch[f"{side}_positions"]
    )
    for side, tokens, stack in (
      ("encoder", "encoder_tokens", config.encoder),
      ("decoder", "decoder_inputs", config.decoder),
    )
  }
  return {**batch, **positions}
