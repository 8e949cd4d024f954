import jax.numpy as jnp
import numpy as np

from encdec.masks import positions_from_segments, shift_right


def test_positions_begin_anew_in_every_segment():
  segments = jnp.array([[1, 1, 1, 2, 2, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
  expected = [[0, 1, 2, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5, 6]]
  np.testing.assert_array_equal(positions_from_segments(segments), expected)


def test_shift_right():
  shifted = shift_right(jnp.array([[5, 6, 7]]), 2)
  np.testing.assert_array_equal(shifted, [[2, 5, 6]])
