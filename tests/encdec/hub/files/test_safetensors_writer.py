"""Weights are written so that safetensors reads them, atomically."""

import numpy as np
import pytest
import safetensors.numpy

from encdec.hub.files import safetensors_writer, weight_files


@pytest.mark.parametrize("limit", ["1GB", 20])
def test_written_files_are_read_back_by_us_and_by_safetensors(
  tmp_path, seed, limit, make_tensors, write_tensors, assert_tensors_equal
):
  tensors = make_tensors(seed)
  write_tensors(tmp_path, tensors, limit)
  assert_tensors_equal(weight_files.open_weights(tmp_path), tensors)
  theirs = {}
  for path in tmp_path.glob("*.safetensors"):
    theirs |= safetensors.numpy.load_file(path)
  assert_tensors_equal(theirs, tensors)
  assert (tmp_path / weight_files.INDEX).exists() == (limit == 20)


@pytest.mark.parametrize("first", ["1GB", 20])
@pytest.mark.parametrize("second", ["1GB", 40])
def test_a_second_save_replaces_the_first(
  tmp_path,
  seed,
  first,
  second,
  make_tensors,
  write_tensors,
  assert_tensors_equal,
):
  write_tensors(tmp_path, make_tensors(seed), first)
  tensors = make_tensors(seed + 1)
  write_tensors(tmp_path, tensors, second)
  assert_tensors_equal(weight_files.open_weights(tmp_path), tensors)
  named = {weight_files.SINGLE}
  if second == 40:
    named = {
      weight_files.INDEX,
      *weight_files.shard_names(tmp_path / weight_files.INDEX).values(),
    }
  assert {path.name for path in tmp_path.iterdir()} == named


def test_a_save_that_fails_leaves_the_old_weights(
  tmp_path, seed, make_tensors, write_tensors, assert_tensors_equal
):
  tensors = make_tensors(seed)
  write_tensors(tmp_path, tensors)

  def fail():
    raise RuntimeError("the disk is gone")

  bad = safetensors_writer.TensorToWrite("x", (2,), np.dtype(np.float32), fail)
  with pytest.raises(RuntimeError, match="the disk is gone"):
    safetensors_writer.write_weights(tmp_path, [bad], "1GB")
  assert_tensors_equal(weight_files.open_weights(tmp_path), tensors)
  assert [path.name for path in tmp_path.iterdir()] == [weight_files.SINGLE]


@pytest.mark.parametrize(
  ("size", "bytes_"),
  [("10GB", 10**10), ("5 MiB", 5 << 20), ("7kb", 7000), ("9B", 9), (12, 12)],
)
def test_sizes(size, bytes_):
  assert safetensors_writer.parse_size(size) == bytes_


@pytest.mark.parametrize("size", ["", "GB", "ten GB", "1.5GB"])
def test_a_size_that_is_none_is_refused(size):
  with pytest.raises(ValueError, match="max_shard_size"):
    safetensors_writer.parse_size(size)
