"""Buckets: the few shapes that generation is compiled for."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from encdec.generate import row_keys
from encdec.hub.host import Held, numpy_of


def length_bucket(length: int, limit: int, step: int = 32) -> int:
  """The next multiple of `step`, within the position table."""
  return min(-(-length // step) * step, limit)


def row_bucket(batch: int) -> int:
  """The next power of two, and from 16 rows on the next multiple of 16."""
  if batch > 16:
    return -(-batch // 16) * 16
  return 1 << (batch - 1).bit_length()


def pad(tree: Any, size: int, axis: int) -> Any:
  """Zeros up to `size`: rows and columns that no token attends to."""

  def padded(leaf: Held) -> Held:
    more = [(0, 0)] * leaf.ndim
    more[axis] = 0, max(size - leaf.shape[axis], 0)
    return numpy_of(leaf).pad(leaf, more)

  return jax.tree.map(padded, tree)


def pad_keys(key: Key[Array, "*B"] | None, batch: int, rows: int) -> Any:
  """One key is left as it is; of one a row the last is repeated."""
  if key is None or key.ndim == 0:
    return key
  return row_keys(key, batch)[jnp.minimum(jnp.arange(rows), batch - 1)]
