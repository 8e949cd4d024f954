"""The two divisors, by their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from encdec.generation.search.length_penalty import length_divisor

LENGTHS = np.array([1, 2, 7, 130])


@pytest.mark.parametrize("penalty", [-0.7, 0.0, 1.0, 2.5])
@pytest.mark.parametrize(
  ("scoring", "base"), [("pytorch", LENGTHS), ("gnmt", (5 + LENGTHS) / 6)]
)
def test_it_is_a_power_of_the_length(scoring, base, penalty):
  found = length_divisor(jnp.asarray(LENGTHS), jnp.float32(penalty), scoring)
  np.testing.assert_allclose(found, base**penalty, rtol=1e-5)
