"""Views of tensors read only what is asked for, and see changed files."""

import os

import numpy as np
import pytest

from encdec.hub.files import weight_files
from encdec.hub.files.lazy_tensors import TensorView, check_unchanged
from encdec.hub.files.mmap import WeightFileError


class _Once(dict):
  """Fails where a name is read that nobody asked for."""

  def __getitem__(self, name):
    assert name == "asked"
    return super().__getitem__(name)


def test_only_what_is_asked_for_is_read():
  tensors = _Once(asked=np.ones(2), other=np.zeros(2))
  names = {"new": "asked", "rest": "other"}
  view = TensorView(tensors, names, {"rest": np.full(2, 7.0)})
  assert list(view) == ["new", "rest"] and len(view) == 2
  assert view["new"] is tensors["asked"]
  np.testing.assert_array_equal(view["rest"], [7, 7])


def test_a_file_that_was_written_into_is_seen_through_views(
  tmp_path, make_tensors, write_tensors, seed
):
  write_tensors(tmp_path, make_tensors(seed))
  tensors = weight_files.open_weights(tmp_path)
  view = TensorView(TensorView(tensors, {"c": "b.bias"}), {"b": "c"})
  check_unchanged(view)
  os.utime(tmp_path / weight_files.SINGLE, (1, 1))
  with pytest.raises(WeightFileError, match="has changed since"):
    check_unchanged(view)
