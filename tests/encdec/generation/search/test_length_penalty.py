"""The two divisors, by their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from encdec.generation.search.length_penalty import length_divisor
from encdec.generation.search.options import SearchOptions

LENGTHS = np.array([1, 2, 7, 130])


@pytest.mark.parametrize("penalty", [-0.7, 0.0, 1.0, 2.5])
@pytest.mark.parametrize(
  ("scoring", "base"), [("pytorch", LENGTHS), ("gnmt", (5 + LENGTHS) / 6)]
)
def test_it_is_a_power_of_the_length(scoring, base, penalty):
  options = SearchOptions(
    jnp.int32(200), jnp.int32(0), jnp.float32(penalty), scoring=scoring
  )
  found = length_divisor(jnp.asarray(LENGTHS), options)
  np.testing.assert_allclose(found, base**penalty, rtol=1e-5)
