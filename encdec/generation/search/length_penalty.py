"""The length penalty, by which texts of different lengths are compared."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from encdec.generation.search.options import SearchOptions


def length_divisor(
  length: Int[Array, "..."], options: SearchOptions
) -> Float[Array, "..."]:
  """The divisor of a sum of log-probabilities.

  "pytorch" is length^penalty; "gnmt" ((5 + length) / 6)^penalty (Wu et al.
  2016, equation 14), which Rothe et al. and BertSum report with.

  Args:
    length: in new tokens, the end token included.
  """
  length = length.astype(jnp.float32)
  if options.scoring == "gnmt":
    length = (length + 5.0) / 6.0
  return length**options.length_penalty
