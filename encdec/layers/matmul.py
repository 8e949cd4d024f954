"""Products of a few rows with many, which decoding is made of."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# With more rows a CPU's product takes as long either way round.
FEW_ROWS = 64


def few_by_many(
  few: Float[Array, "..."],
  many: Float[Array, "..."],
  dimension_numbers: jax.lax.DotDimensionNumbers,
  dtype: Any,
  platform: str,
  bias: Float[Array, "many"] | None = None,
) -> Float[Array, "..."]:
  """`jax.lax.dot_general`, accumulated in `dtype`, where few rows meet many.

  A CPU goes along the rows of its first operand and reads the second one again
  for every few of them: with the many first, a product with a few rows takes
  two thirds of the time. Accelerators do not mind.

  Args:
    many: has one axis, of the many, besides those of `dimension_numbers`.
    bias: is added to each row of products. It is here so that nothing stands
      between a product that lies the other way round and who turns it back.
  """
  (of_few, of_many), (batch_of_few, batch_of_many) = dimension_numbers
  taken = (*of_few, *batch_of_few)
  rows = math.prod(n for axis, n in enumerate(few.shape) if axis not in taken)
  if platform != "cpu" or not 1 < rows <= FEW_ROWS:
    product = jax.lax.dot_general(
      few, many, dimension_numbers, preferred_element_type=dtype
    )
    if bias is not None:
      product += bias.reshape((1,) * (product.ndim - 1) + bias.shape)
    return product
  product = jax.lax.dot_general(
    many,
    few,
    ((of_many, of_few), (batch_of_many, batch_of_few)),
    preferred_element_type=dtype,
  )
  # XLA would turn a transposed product round again.
  product = jax.lax.optimization_barrier(product)
  first = len(batch_of_few)
  if bias is not None:
    rest = product.ndim - first - 1
    product += bias.reshape((1,) * first + bias.shape + (1,) * rest)
  return jnp.moveaxis(product, first, -1)
