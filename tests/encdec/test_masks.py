import jax.numpy as jnp
import numpy as np

from encdec.masks import dense_mask, rows_mask, shift_right
from encdec.types import RowLayout


def test_shift_right():
  shifted = shift_right(jnp.array([[5, 6, 7]]), 2)
  np.testing.assert_array_equal(shifted, [[2, 5, 6]])


def test_rows_with_segments_of_queries_alone_follow_no_layout():
  """As those of Hugging Face's rule, whose padding may stand anywhere."""
  real = jnp.array([[0, 1, 1]])
  mask = rows_mask(real, real, None, RowLayout.SINGLE)
  assert mask.row_layout == RowLayout.SINGLE
  allowed = dense_mask(mask, 3, 3)
  np.testing.assert_array_equal(allowed[0, 0, 0], [True, False, False])
  mask = rows_mask(real, real, jnp.ones_like(real), RowLayout.SINGLE)
  assert mask.row_layout == RowLayout.ANY
  allowed = dense_mask(mask, 3, 3)
  np.testing.assert_array_equal(allowed[0, 0, 0], [False, True, True])
