"""Ranking: the best few of a vocabulary, and their log-probabilities.

Scores are `*B V`. With `vocab_major` V is the outer axis in memory, as a CPU's
head leaves logits, and they are read in that order.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from encdec.layers.matmul import SKINNY_ROWS

# A row of a TPU's registers, and so much of a row that a GPU reads at once.
TILE = 128


def padded_size(size: int) -> int:
  """The size, rounded up to whole tiles."""
  return -(-size // TILE) * TILE


def pad_to_tiles(logits: Float[Array, "B N V"]) -> Float[Array, "B N W"]:
  """Pads V with the lowest number, so that no ranking has to."""
  more = padded_size(logits.shape[-1]) - logits.shape[-1]
  lowest = jnp.finfo(logits.dtype).min
  return jnp.pad(logits, ((0, 0), (0, 0), (0, more)), constant_values=lowest)


def prefers_vocab_major(rows: int, platform: str) -> bool:
  """Whether ranking logits of so many rows is faster without a transpose."""
  return platform == "cpu" and 16 <= rows <= SKINNY_ROWS


def log_softmax(
  logits: Float[Array, "*B V"], *, vocab_major: bool = False
) -> Float[Array, "*B V"]:
  """`jax.nn.log_softmax` over V."""
  if not vocab_major:
    return jax.nn.log_softmax(logits, axis=-1)
  columns = _vocab_major(logits)
  top = jnp.max(columns, axis=0, keepdims=True)
  total = jnp.sum(jnp.exp(columns - top), axis=0)
  rows = (*logits.shape[:-1], 1)
  return logits - top.reshape(rows) - jnp.log(total).reshape(rows)


def argmax(
  scores: Float[Array, "*B V"], platform: str, *, vocab_major: bool = False
) -> Int[Array, "*B"]:
  """`jnp.argmax` over V of numbers; with NaN among them, any place in it."""
  if platform != "cpu":
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)
  # The best tile, then its best token: an argmax over V compares one number
  # after another, and a search for the places of the largest number could
  # find none, since XLA may compute scores once a pass and round otherwise.
  short = padded_size(scores.shape[-1]) - scores.shape[-1]
  padding = [(0, 0, 0)] * (scores.ndim - 1) + [(0, short, 0)]
  lowest = jnp.asarray(-jnp.inf, scores.dtype)
  scores = jax.lax.pad(scores, lowest, padding)
  if vocab_major:
    columns = _vocab_major(scores)
    tiles = columns.reshape(-1, TILE, columns.shape[1])
    tile = jnp.argmax(jnp.max(tiles, axis=1), axis=0)
    inside = tiles[tile, :, jnp.arange(tile.size, dtype=jnp.int32)]
  else:
    tiles = scores.reshape(-1, scores.shape[-1] // TILE, TILE)
    tile = jnp.argmax(jnp.max(tiles, axis=-1), axis=-1)
    inside = jnp.take_along_axis(tiles, tile[:, None, None], axis=1)[:, 0]
  best = tile * TILE + jnp.argmax(inside, axis=-1)
  return best.astype(jnp.int32).reshape(scores.shape[:-1])


def top_k(
  scores: Float[Array, "*B V"], k: int, *, vocab_major: bool = False
) -> tuple[Float[Array, "*B M"], Int[Array, "*B M"]]:
  """`jax.lax.top_k`, equal scores included, by reading V once.

  Only the k tiles whose best are best can hold one of the k best; those
  alone are sorted.
  """
  vocab = scores.shape[-1]
  count = -(-vocab // TILE)
  if count <= k:
    best, at = jax.lax.top_k(scores, k)
    return best, at
  if vocab_major:
    return _top_k_vocab_major(scores, k)
  short = count * TILE - vocab
  padding = [(0, 0, 0)] * (scores.ndim - 1) + [(0, short, 0)]
  lowest = jnp.asarray(-jnp.inf, scores.dtype)
  tiles = jax.lax.pad(scores, lowest, padding)
  tiles = tiles.reshape(*scores.shape[:-1], count, TILE)
  _, chosen = jax.lax.top_k(jnp.max(tiles, axis=-1), k)
  # In the order of the vocabulary, in which the first of equals is taken.
  chosen = jnp.sort(chosen, axis=-1)
  few = jnp.take_along_axis(tiles, chosen[..., None], axis=-2)
  best, at = jax.lax.top_k(few.reshape(*few.shape[:-2], -1), k)
  tile = jnp.take_along_axis(chosen, at // TILE, axis=-1)
  return best, tile * TILE + at % TILE


def _vocab_major(scores: Float[Array, "*B V"]) -> Float[Array, "V R"]:
  """The transpose: V first, and all rows in one axis, which is read at once."""
  return jnp.moveaxis(scores, -1, 0).reshape(scores.shape[-1], -1)


def _top_k_vocab_major(
  scores: Float[Array, "*B V"], k: int
) -> tuple[Float[Array, "*B M"], Int[Array, "*B M"]]:
  vocab = scores.shape[-1]
  count = vocab // TILE
  # XLA would cut them before it puts the rows in one axis, and so make them a
  # few at a time.
  columns = jax.lax.optimization_barrier(_vocab_major(scores))
  rows = jnp.arange(columns.shape[1], dtype=jnp.int32)[:, None]
  whole = columns[: count * TILE].reshape(count, TILE, -1)
  _, chosen = jax.lax.top_k(jnp.max(whole, axis=1).T, k)
  chosen = jnp.sort(chosen, axis=-1)[..., None]
  place = jnp.arange(TILE, dtype=jnp.int32)[None, None]
  tokens = (chosen * TILE + place).reshape(rows.size, -1)
  few = columns[tokens, rows]
  # Tokens after the last whole tile: all of them are looked at.
  rest = jnp.arange(count * TILE, vocab, dtype=jnp.int32)
  rest = jnp.broadcast_to(rest, (rows.size, rest.size))
  tokens = jnp.concatenate([tokens, rest], axis=-1)
  few = jnp.concatenate([few, columns[count * TILE :].T], axis=-1)
  best, at = jax.lax.top_k(few, k)
  tokens = jnp.take_along_axis(tokens, at, axis=-1)
  shape = (*scores.shape[:-1], k)
  return best.reshape(shape), tokens.reshape(shape)
