"""Ranking: the best few of a vocabulary."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

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


def top_k(
  scores: Float[Array, "*B V"], k: int
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
