"""Pads rows and lengths to buckets, so that generation compiles rarely."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from encdec.config import StackConfig
from encdec.generation.generate import Prompt, row_keys
from encdec.hub.facade.inputs import SideInputs
from encdec.hub.facade.jitted import is_traced
from encdec.hub.facade.numpy_or_jax import AnyArray, array_module


def length_bucket(length: int, limit: int, step: int = 32) -> int:
  """The next multiple of `step`, within the position table."""
  return min(-(-length // step) * step, limit)


def row_bucket(batch: int) -> int:
  """The next power of two, and from 16 rows on the next multiple of 16."""
  if batch > 16:
    return -(-batch // 16) * 16
  return 1 << (batch - 1).bit_length()


def in_buckets(
  encoder: StackConfig,
  source: SideInputs,
  states: Float[Array, "B S W"] | None,
  prompt: Prompt,
  key: Key[Array, "*B"] | None,
) -> tuple[SideInputs, Any, Prompt, Any]:
  """A search's inputs on devices, padded unless they are traced."""
  if not is_traced((source, states, prompt, key)):
    batch, length = source.segments.shape
    rows = row_bucket(batch)
    key = pad_keys(key, batch, rows)
    source, states, prompt = pad((source, states, prompt), rows, 0)
    if states is None:
      bucket = length_bucket(length, encoder.max_positions)
      source = pad(source, bucket, 1)
  source, states, prompt = jax.tree.map(jnp.asarray, (source, states, prompt))
  return source, states, prompt, key


def pad(tree: Any, size: int, axis: int) -> Any:
  """Zeros up to `size`: rows and columns that no token attends to."""

  def padded(leaf: AnyArray) -> AnyArray:
    more = [(0, 0)] * leaf.ndim
    more[axis] = 0, max(size - leaf.shape[axis], 0)
    return array_module(leaf).pad(leaf, more)

  return jax.tree.map(padded, tree)


def pad_keys(key: Key[Array, "*B"] | None, batch: int, rows: int) -> Any:
  """One key stays as it is; of one a row, the last is repeated."""
  if key is None or key.ndim == 0:
    return key
  return row_keys(key, batch)[jnp.minimum(jnp.arange(rows), batch - 1)]
