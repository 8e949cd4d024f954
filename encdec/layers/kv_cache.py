"""Keys and values that are kept: how they lie, and how they are written."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from encdec.types import KeyBlocks, KeyValue

# The fewest keys of a block, of several: with 64 to 88 products are fastest,
# where those are whole eights.
BLOCK = 64


def keep(
  keys: Float[Array, "B G S K"],
  values: Float[Array, "B G S K"],
  platform: str,
  abreast: int = 1,
) -> KeyValue:
  """Keys and values as attention reads them fastest on `platform`.

  Args:
    abreast: so many are written at once, and are in one block.
  """
  if platform != "cpu":
    return keys, values
  return _in_blocks(keys, abreast), values


def _in_blocks(keys: Float[Array, "B G S K"], abreast: int) -> KeyBlocks:
  batch, groups, count, width = keys.shape
  unit = math.lcm(abreast, 8)
  size = min(count, -(-BLOCK // unit) * unit)
  more = -count % size
  blocks = jnp.pad(keys, ((0, 0), (0, 0), (0, more), (0, 0)))
  blocks = blocks.reshape(batch, groups, -1, size, width).swapaxes(3, 4)
  if count <= size:
    blocks = blocks.squeeze(2)
  return KeyBlocks(blocks, count)


def kept(held: KeyValue) -> tuple[Array, Array]:
  """The keys and values that were given to `keep`."""
  keys, values = held
  if isinstance(keys, KeyBlocks):
    plain = keys.blocks.swapaxes(-1, -2)
    plain = plain.reshape(*plain.shape[:2], -1, plain.shape[-1])
    keys = plain[:, :, : keys.count]
  return keys, values


def read(
  held: KeyValue,
) -> tuple[Float[Array, "B S G K"] | KeyBlocks, Float[Array, "B S G K"]]:
  """Keys and values as `encdec.layers.attention.attention` is given them."""
  keys, values = held
  if not isinstance(keys, KeyBlocks):
    keys = keys.swapaxes(1, 2)
  return keys, values.swapaxes(1, 2)


def write(
  held: KeyValue,
  keys: Float[Array, "B Q G K"],
  values: Float[Array, "B Q G K"],
  slot: Int[Array, ""],
  abreast: int,
) -> KeyValue:
  """Puts fresh keys and values where the rows of a cache begin.

  Args:
    held: `B GR S K`: R of the Q are written to rows of their own, each as one
      slot, or R is 1.
    slot: in steps of `abreast` slots.
    abreast: as of `keep`.
  """
  rows = held[1].shape[1]
  zero = jnp.zeros((), slot.dtype)
  at = slot * abreast

  def by_rows(fresh: Array) -> Float[Array, "B R S K"]:
    fresh = fresh.swapaxes(1, 2).astype(held[1].dtype)
    return fresh.reshape(fresh.shape[0], rows, -1, fresh.shape[-1])

  def put(to: Array, fresh: Array) -> Array:
    return jax.lax.dynamic_update_slice(to, fresh, (zero, zero, at, zero))

  fresh = by_rows(keys)
  written = put(held[1], by_rows(values))
  old = held[0]
  if not isinstance(old, KeyBlocks):
    return put(old, fresh), written
  if fresh.shape[2] != abreast:
    # A prompt, of one beam and any length: over any blocks.
    return _in_blocks(put(kept(held)[0], fresh), abreast), written
  fresh = fresh.swapaxes(2, 3)
  to: tuple[Array, ...] = (zero, zero, zero, at)
  if old.blocks.ndim > fresh.ndim:
    size = jnp.asarray(old.blocks.shape[-1], slot.dtype)
    to = (zero, zero, jax.lax.div(at, size), zero, jax.lax.rem(at, size))
    fresh = fresh[:, :, None]
  blocks = jax.lax.dynamic_update_slice(old.blocks, fresh, to)
  return KeyBlocks(blocks, old.count), written


def grown(held: KeyValue, slots: int, abreast: int = 1) -> KeyValue:
  """With zeros up to so many slots."""
  more = ((0, 0), (0, 0), (0, slots - held[1].shape[2]), (0, 0))
  keys, values = (jnp.pad(part, more) for part in kept(held))
  if not isinstance(held[0], KeyBlocks):
    return keys, values
  return _in_blocks(keys, abreast), values


def spread(
  prompt: KeyValue, held: KeyValue, beams: int, apart: bool
) -> KeyValue:
  """Puts a prompt's into the first slots of one beam, or of each.

  Args:
    prompt: of one beam.
    held: as a search begins with it, and lies as it does.
    apart: each beam has rows of its own; else they are abreast.
  """

  def put(part: Array, whole: Array) -> Array:
    if apart:
      part = jnp.repeat(part, beams, axis=1)
      return jax.lax.dynamic_update_slice(whole, part, (0,) * whole.ndim)
    batch, groups, slots, width = whole.shape
    by_beam = whole.reshape(batch, groups, slots // beams, beams, width)
    by_beam = by_beam.at[:, :, : part.shape[2], 0].set(part)
    return by_beam.reshape(whole.shape)

  keys, values = jax.tree.map(put, kept(prompt), kept(held))
  if not isinstance(held[0], KeyBlocks):
    return keys, values
  return _in_blocks(keys, 1 if apart else beams), values
