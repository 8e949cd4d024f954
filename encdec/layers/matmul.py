"""Matrix products with few rows on one side, which decoding is made of."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# With more rows a CPU's product takes as long either way round.
SKINNY_ROWS = 64


def skinny_matmul(
  skinny: Float[Array, "..."],
  wide: Float[Array, "..."],
  dimension_numbers: jax.lax.DotDimensionNumbers,
  dtype: Any,
  platform: str,
  bias: Float[Array, "wide"] | None = None,
) -> Float[Array, "..."]:
  """`jax.lax.dot_general`, accumulated in `dtype`, of a few rows with many.

  A CPU goes along the rows of its first operand and reads the second one again
  for every few of them: with the wide one first, a product with a few rows
  takes two thirds of the time. Accelerators do not mind.

  Args:
    skinny: the operand of few rows.
    wide: has one axis of rows besides the axes of `dimension_numbers`.
    bias: is added to each row of products. It is here so that nothing stands
      between a transposed product and the code that transposes it back.
  """
  (of_skinny, of_wide), (batch_of_skinny, batch_of_wide) = dimension_numbers
  taken = (*of_skinny, *batch_of_skinny)
  rows = math.prod(
    n for axis, n in enumerate(skinny.shape) if axis not in taken
  )
  if platform != "cpu" or not 1 < rows <= SKINNY_ROWS:
    product = jax.lax.dot_general(
      skinny, wide, dimension_numbers, preferred_element_type=dtype
    )
    if bias is not None:
      product += bias.reshape((1,) * (product.ndim - 1) + bias.shape)
    return product
  product = jax.lax.dot_general(
    wide,
    skinny,
    ((of_wide, of_skinny), (batch_of_wide, batch_of_skinny)),
    preferred_element_type=dtype,
  )
  # XLA would turn a transposed product round again.
  product = jax.lax.optimization_barrier(product)
  first = len(batch_of_skinny)
  if bias is not None:
    rest = product.ndim - first - 1
    product += bias.reshape((1,) * first + bias.shape + (1,) * rest)
  return jnp.moveaxis(product, first, -1)
