"""The key/value cache: its layout on each platform, and writes to it."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from encdec.types import KeyBlocks, KeyValue

# The fewest keys of a block, of several: with 64 to 88 products are fastest,
# where those are whole eights.
BLOCK = 64


def as_cache(
  keys: Float[Array, "B G S K"],
  values: Float[Array, "B G S K"],
  platform: str,
  beams_per_slot: int = 1,
) -> KeyValue:
  """Keys and values as attention reads them fastest on `platform`.

  Args:
    beams_per_slot: keys that are written at once; one block holds them all.
  """
  if platform != "cpu":
    return keys, values
  return _in_blocks(keys, beams_per_slot), values


def _in_blocks(keys: Float[Array, "B G S K"], beams_per_slot: int) -> KeyBlocks:
  batch, groups, count, width = keys.shape
  unit = math.lcm(beams_per_slot, 8)
  size = min(count, -(-BLOCK // unit) * unit)
  more = -count % size
  blocks = jnp.pad(keys, ((0, 0), (0, 0), (0, more), (0, 0)))
  blocks = blocks.reshape(batch, groups, -1, size, width).swapaxes(3, 4)
  if count <= size:
    blocks = blocks.squeeze(2)
  return KeyBlocks(blocks, count)


def from_cache(cache: KeyValue) -> tuple[Array, Array]:
  """The keys and values that `as_cache` was given."""
  keys, values = cache
  if isinstance(keys, KeyBlocks):
    plain = keys.blocks.swapaxes(-1, -2)
    plain = plain.reshape(*plain.shape[:2], -1, plain.shape[-1])
    keys = plain[:, :, : keys.count]
  return keys, values


def read(
  cache: KeyValue,
) -> tuple[Float[Array, "B S G K"] | KeyBlocks, Float[Array, "B S G K"]]:
  """Keys and values as `encdec.layers.attention.attention` is given them."""
  keys, values = cache
  if not isinstance(keys, KeyBlocks):
    keys = keys.swapaxes(1, 2)
  return keys, values.swapaxes(1, 2)


def write(
  cache: KeyValue,
  keys: Float[Array, "B Q G K"],
  values: Float[Array, "B Q G K"],
  slot: Int[Array, ""],
  beams_per_slot: int,
) -> KeyValue:
  """Writes new keys and values at a slot of a cache.

  Args:
    cache: `B GR S K`: R of the Q are written to rows of their own, each as one
      slot, or R is 1.
    slot: in steps of `beams_per_slot` slots.
    beams_per_slot: as of `as_cache`.
  """
  rows = cache[1].shape[1]
  zero = jnp.zeros((), slot.dtype)
  at = slot * beams_per_slot

  def by_rows(fresh: Array) -> Float[Array, "B R S K"]:
    fresh = fresh.swapaxes(1, 2).astype(cache[1].dtype)
    return fresh.reshape(fresh.shape[0], rows, -1, fresh.shape[-1])

  def put(to: Array, fresh: Array) -> Array:
    return jax.lax.dynamic_update_slice(to, fresh, (zero, zero, at, zero))

  fresh = by_rows(keys)
  written = put(cache[1], by_rows(values))
  old = cache[0]
  if not isinstance(old, KeyBlocks):
    return put(old, fresh), written
  if fresh.shape[2] != beams_per_slot:
    # A prompt, of one beam and any length: over any blocks.
    return _in_blocks(put(from_cache(cache)[0], fresh), beams_per_slot), written
  fresh = fresh.swapaxes(2, 3)
  to: tuple[Array, ...] = (zero, zero, zero, at)
  if old.blocks.ndim > fresh.ndim:
    size = jnp.asarray(old.blocks.shape[-1], slot.dtype)
    to = (zero, zero, jax.lax.div(at, size), zero, jax.lax.rem(at, size))
    fresh = fresh[:, :, None]
  blocks = jax.lax.dynamic_update_slice(old.blocks, fresh, to)
  return KeyBlocks(blocks, old.count), written


def grow_to(cache: KeyValue, slots: int) -> KeyValue:
  """A cache of one beam, padded with zeros to so many slots."""
  more = ((0, 0), (0, 0), (0, slots - cache[1].shape[2]), (0, 0))
  keys, values = (jnp.pad(part, more) for part in from_cache(cache))
  if not isinstance(cache[0], KeyBlocks):
    return keys, values
  return _in_blocks(keys, 1), values


def write_prompt(
  prompt: KeyValue, cache: KeyValue, beams: int, separate_beams: bool
) -> KeyValue:
  """Writes a prompt's keys and values to the first slots of one or each beam.

  Args:
    prompt: of one beam.
    cache: as a search begins with it; the result has its layout.
    separate_beams: each beam has rows of its own; else a slot holds all beams.
  """

  def put(part: Array, whole: Array) -> Array:
    if separate_beams:
      part = jnp.repeat(part, beams, axis=1)
      return jax.lax.dynamic_update_slice(whole, part, (0,) * whole.ndim)
    batch, groups, slots, width = whole.shape
    by_beam = whole.reshape(batch, groups, slots // beams, beams, width)
    by_beam = by_beam.at[:, :, : part.shape[2], 0].set(part)
    return by_beam.reshape(whole.shape)

  keys, values = jax.tree.map(put, from_cache(prompt), from_cache(cache))
  if not isinstance(cache[0], KeyBlocks):
    return keys, values
  return _in_blocks(keys, 1 if separate_beams else beams), values
