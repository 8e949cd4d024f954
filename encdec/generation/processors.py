"""Changes to scores before a token is chosen; Hugging Face's rules."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def ban_end_before(
  scores: Float[Array, "B V"],
  length: Int[Array, ""],
  min_length: Int[Array, ""],
  end_tokens: tuple[int, ...],
) -> Float[Array, "B V"]:
  """Forbids end tokens while the row, start included, is under the minimum."""
  if not end_tokens:
    return scores
  banned = jnp.zeros((1, scores.shape[-1]), bool)
  banned = banned.at[0, jnp.asarray(end_tokens, jnp.int32)].set(True)
  lowest = jnp.finfo(scores.dtype).min
  return jnp.where(banned & (length < min_length), lowest, scores)
