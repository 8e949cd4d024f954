"""Ranking: the best few of a vocabulary, and their log-probabilities.

Scores are `*B V`; where they lie `across`, V is the outer axis in memory, as a
CPU's head leaves logits, and they are read in that order.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from encdec.layers.matmul import FEW_ROWS

# A row of a TPU's registers, and so much of a row that a GPU reads at once.
STRETCH = 128


def stretched(size: int) -> int:
  """The size in whole stretches."""
  return -(-size // STRETCH) * STRETCH


def stretch(logits: Float[Array, "B N V"]) -> Float[Array, "B N W"]:
  """Padded with the lowest number, so that no ranking has to pad them."""
  more = stretched(logits.shape[-1]) - logits.shape[-1]
  lowest = jnp.finfo(logits.dtype).min
  return jnp.pad(logits, ((0, 0), (0, 0), (0, more)), constant_values=lowest)


def lie_across(rows: int, platform: str) -> bool:
  """Whether a step that has logits of so many rows ranks them as they lie.

  With fewer rows it is faster to turn them.
  """
  return platform == "cpu" and 16 <= rows <= FEW_ROWS


def log_softmax(
  logits: Float[Array, "*B V"], *, across: bool = False
) -> Float[Array, "*B V"]:
  """`jax.nn.log_softmax` over V."""
  if not across:
    return jax.nn.log_softmax(logits, axis=-1)
  lying = _lying(logits)
  top = jnp.max(lying, axis=0, keepdims=True)
  total = jnp.sum(jnp.exp(lying - top), axis=0)
  rows = (*logits.shape[:-1], 1)
  return logits - top.reshape(rows) - jnp.log(total).reshape(rows)


def argmax(
  scores: Float[Array, "*B V"], platform: str, *, across: bool = False
) -> Int[Array, "*B"]:
  """`jnp.argmax` over V of numbers; with NaN among them, any place in it."""
  if platform != "cpu":
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)
  # In two passes: XLA's one keeps a number and its place, one after another.
  rows, vocab = scores.shape[:-1], scores.shape[-1]
  axis = 0 if across else len(rows)
  scores = _lying(scores) if across else scores
  best = jnp.max(scores, axis=axis, keepdims=True)
  places = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
  places = jnp.where(scores == best, places, vocab)
  # None is equal to a best that is NaN.
  return (jnp.min(places, axis=axis) % vocab).reshape(rows)


def top_k(
  scores: Float[Array, "*B V"], k: int, *, across: bool = False
) -> tuple[Float[Array, "*B M"], Int[Array, "*B M"]]:
  """`jax.lax.top_k`, equal scores included, by reading V once.

  Only the k stretches whose best are best can hold one of the k best; those
  alone are sorted.
  """
  vocab = scores.shape[-1]
  count = -(-vocab // STRETCH)
  if count <= k:
    best, at = jax.lax.top_k(scores, k)
    return best, at
  if across:
    return _top_k_across(scores, k)
  short = count * STRETCH - vocab
  padding = [(0, 0, 0)] * (scores.ndim - 1) + [(0, short, 0)]
  lowest = jnp.asarray(-jnp.inf, scores.dtype)
  stretches = jax.lax.pad(scores, lowest, padding)
  stretches = stretches.reshape(*scores.shape[:-1], count, STRETCH)
  _, chosen = jax.lax.top_k(jnp.max(stretches, axis=-1), k)
  # In the order of the vocabulary, in which the first of equals is taken.
  chosen = jnp.sort(chosen, axis=-1)
  few = jnp.take_along_axis(stretches, chosen[..., None], axis=-2)
  best, at = jax.lax.top_k(few.reshape(*few.shape[:-2], -1), k)
  stretch = jnp.take_along_axis(chosen, at // STRETCH, axis=-1)
  return best, stretch * STRETCH + at % STRETCH


def _lying(scores: Float[Array, "*B V"]) -> Float[Array, "V R"]:
  """V first, and all rows in one axis: along it they are read at once."""
  return jnp.moveaxis(scores, -1, 0).reshape(scores.shape[-1], -1)


def _top_k_across(
  scores: Float[Array, "*B V"], k: int
) -> tuple[Float[Array, "*B M"], Int[Array, "*B M"]]:
  vocab = scores.shape[-1]
  count = vocab // STRETCH
  # XLA would cut them before it puts the rows in one axis, and so make them a
  # few at a time.
  lying = jax.lax.optimization_barrier(_lying(scores))
  rows = jnp.arange(lying.shape[1], dtype=jnp.int32)[:, None]
  whole = lying[: count * STRETCH].reshape(count, STRETCH, -1)
  _, chosen = jax.lax.top_k(jnp.max(whole, axis=1).T, k)
  chosen = jnp.sort(chosen, axis=-1)[..., None]
  place = jnp.arange(STRETCH, dtype=jnp.int32)[None, None]
  tokens = (chosen * STRETCH + place).reshape(rows.size, -1)
  few = lying[tokens, rows]
  # Fewer than a stretch are in none; all of them are looked at.
  rest = jnp.arange(count * STRETCH, vocab, dtype=jnp.int32)
  rest = jnp.broadcast_to(rest, (rows.size, rest.size))
  tokens = jnp.concatenate([tokens, rest], axis=-1)
  few = jnp.concatenate([few, lying[count * STRETCH :].T], axis=-1)
  best, at = jax.lax.top_k(few, k)
  tokens = jnp.take_along_axis(tokens, at, axis=-1)
  shape = (*scores.shape[:-1], k)
  return best.reshape(shape), tokens.reshape(shape)
