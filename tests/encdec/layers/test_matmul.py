"""Few rows by many: equal to the plain product, computed the other way."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers.matmul import SKINNY_ROWS, skinny_matmul

# Few, many, and the axes of `jax.lax.dot_general`.
CASES = {
  "dense": ((3, 2, 8), (50, 8), (((2,), (1,)), ((), ()))),
  "kernel": ((6, 8), (8, 50), (((1,), (0,)), ((), ()))),
  "heads": ((2, 3, 4, 8), (2, 50, 3, 8), (((3,), (3,)), ((0, 1), (0, 2)))),
  "one row": ((1, 1, 8), (50, 8), (((2,), (1,)), ((), ()))),
  "many rows": ((SKINNY_ROWS + 1, 8), (50, 8), (((1,), (1,)), ((), ()))),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_plain_product(case):
  few, many, axes = CASES[case]
  random = np.random.default_rng(0)
  few = jnp.asarray(random.normal(size=few), jnp.float32)
  many = jnp.asarray(random.normal(size=many), jnp.float32)
  expected = jax.lax.dot_general(few, many, axes)
  found = skinny_matmul(few, many, axes, jnp.float32, "cpu")
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  bias = jnp.arange(50, dtype=jnp.float32)
  found = skinny_matmul(few, many, axes, jnp.float32, "cpu", bias=bias)
  expected = np.asarray(expected) + np.asarray(bias)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("rows", "first"), [(1, 1), (2, 50), (SKINNY_ROWS, 50), (65, 65)]
)
def test_a_few_rows_come_second(rows, first):
  """XLA keeps the order, which it would otherwise turn round."""
  few, many = jnp.ones((rows, 8)), jnp.ones((50, 8))

  def product(few, many):
    axes = (((1,), (1,)), ((), ()))
    return skinny_matmul(few, many, axes, jnp.float32, "cpu") + 1.0

  text = jax.jit(product).lower(few, many).compile().as_text()
  last = 50 + rows - first
  assert re.search(rf"f32\[{first},{last}\]\S* (dot|fusion)\(", text), text
