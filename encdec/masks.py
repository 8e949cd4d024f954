"""Masks, positions and shifted inputs: pure functions of ids and segments."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from encdec.types import AttentionMask


def dense_mask(
  mask: AttentionMask, queries: int, keys: int
) -> Bool[Array, "#B #H T S"] | None:
  """The mask written out, True where attention is allowed; None: everywhere.

  Args:
    mask: what is declared.
    queries: T, the length of the query axis.
    keys: S, the length of the key axis.
  """
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
  if not parts:
    return None
  result = parts[0]
  for part in parts[1:]:
    result = result & part
  return result


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


def shift_right(
  targets: Int[Array, "B T"], start_token: int
) -> Int[Array, "B T"]:
  """Decoder inputs: the start token, then the targets but the last."""
  start = jnp.full_like(targets[:, :1], start_token)
  return jnp.concatenate([start, targets[:, :-1]], axis=1)
