import jax.numpy as jnp
import numpy as np

from encdec.masks import shift_right


def test_shift_right():
  shifted = shift_right(jnp.array([[5, 6, 7]]), 2)
  np.testing.assert_array_equal(shifted, [[2, 5, 6]])
