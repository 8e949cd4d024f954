"""Tensors are views of their file, and none leaves it."""

import numpy as np
import pytest

from encdec.hub.files.mmap import MappedFile, WeightFileError

F4 = np.dtype("<f4")


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "numbers"
  np.arange(6, dtype=F4).tofile(path)
  return MappedFile(path)


def test_a_tensor_is_a_read_only_view(file):
  one, other = (file.tensor("t", F4, (2, 3), 0).array() for _ in range(2))
  np.testing.assert_array_equal(one, [[0, 1, 2], [3, 4, 5]])
  assert np.shares_memory(one, other) and not one.flags.writeable


def test_strides_count_elements_within_their_bytes(file):
  whole = range(file.size)
  columns = file.strided("t", F4, (3, 2), (1, 3), 0, whole).array()
  np.testing.assert_array_equal(columns, [[0, 3], [1, 4], [2, 5]])
  with pytest.raises(WeightFileError, match="its storage at 0 to 20"):
    file.strided("t", F4, (3, 2), (1, 3), 0, range(20))


@pytest.mark.parametrize(
  ("shape", "start"), [((7,), 0), ((2, 3), 4), ((-1,), 0), ((2.0,), 0)]
)
def test_a_tensor_that_is_not_in_the_file_is_refused(file, shape, start):
  with pytest.raises(WeightFileError, match=r"numbers is (truncated|damaged)"):
    file.tensor("t", F4, shape, start)
