"""Transposed and contiguous copies equal numpy's; zeros are aligned."""

import ml_dtypes
import numpy as np
import pytest

from encdec.hub.files.host_memory import (
  ScratchBuffer,
  aligned_zeros,
  copy_transposed,
)


@pytest.mark.parametrize("shape", [(1, 1), (7, 40), (16, 3), (33, 17), (0, 4)])
def test_transposed(shape):
  array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
  target = np.full(shape[::-1], -1, np.float32)
  copy_transposed(target, array)
  np.testing.assert_array_equal(target, array.T)


def test_scratch_puts_in_order():
  scratch = ScratchBuffer()
  rng = np.random.default_rng(0)
  cube = rng.normal(size=(5, 6, 7)).astype(np.float16)
  for array in (
    rng.normal(size=(40, 30)).T,
    cube.transpose(2, 0, 1),
    rng.normal(size=(3, 90)).astype(np.float32).T,
    rng.normal(size=(50, 50))[:, ::2],
    np.zeros((0, 3)).T,
  ):
    ordered = scratch.contiguous(array)
    assert ordered.flags.c_contiguous and ordered.dtype == array.dtype
    np.testing.assert_array_equal(ordered, array)
  # What is in order is not copied.
  assert scratch.contiguous(cube) is cube


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 7), (0, 4), ()])
def test_aligned_zeros(shape, dtype):
  zeros = aligned_zeros(shape, dtype)
  assert zeros.shape == shape and zeros.dtype == dtype
  assert zeros.ctypes.data % 64 == 0 and not zeros.any()
  zeros[...] = 1
  assert (zeros == 1).all()
