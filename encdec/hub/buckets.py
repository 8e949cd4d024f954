"""Buckets: the few shapes that generation is compiled for."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from encdec.generate import Generated, row_keys


def length_bucket(length: int, limit: int, step: int = 32) -> int:
  """The next multiple of `step`, within the position table."""
  return min(-(-length // step) * step, limit)


def row_bucket(batch: int) -> int:
  """The next power of two, and from 16 rows on the next multiple of 16."""
  if batch > 16:
    return -(-batch // 16) * 16
  return 1 << (batch - 1).bit_length()


def pad_rows(tree: Any, rows: int) -> Any:
  """More rows, of zeros: sources without a token, which are not searched."""

  def pad(leaf: Array) -> Array:
    more = rows - leaf.shape[0]
    return jnp.pad(leaf, [(0, more)] + [(0, 0)] * (leaf.ndim - 1))

  return jax.tree.map(pad, tree)


def pad_keys(key: Key[Array, "*B"] | None, batch: int, rows: int) -> Any:
  """One key is left as it is; of one a row the last is repeated."""
  if key is None or key.ndim == 0:
    return key
  return row_keys(key, batch)[jnp.minimum(jnp.arange(rows), batch - 1)]


def take_rows(found: Generated, batch: int, returned: int) -> Generated:
  """What was found for the first `batch` sources."""
  texts = batch * returned

  def take(array: Array | None, count: int) -> Any:
    return None if array is None else array[:count]

  return Generated(
    tokens=found.tokens[:texts],
    lengths=found.lengths[:texts],
    steps=found.steps,
    scores=take(found.scores, texts),
    parents=take(found.parents, texts),
    step_scores=take(found.step_scores, batch),
    step_logits=take(found.step_logits, batch),
  )
