"""Weight files of a folder: formats and shards, found or refused by name."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
import torch

from encdec.hub import WeightFileError
from encdec.hub.files import weight_files


def test_a_missing_shard_names_the_file_and_a_tensor(
  tmp_path, seed, make_tensors, write_tensors
):
  write_tensors(tmp_path, make_tensors(seed), 20)
  name = weight_files.shard_names(tmp_path / weight_files.INDEX)["b.bias"]
  (tmp_path / name).unlink()
  with pytest.raises(WeightFileError, match=rf"{name} is missing.*'b\.bias'"):
    weight_files.open_weights(tmp_path)


def test_a_shard_without_a_promised_tensor_names_both(
  tmp_path, seed, make_tensors, write_tensors
):
  tensors = make_tensors(seed)
  write_tensors(tmp_path, tensors, 20)
  name = weight_files.shard_names(tmp_path / weight_files.INDEX)["b.bias"]
  safetensors.numpy.save_file({"other": tensors["b.bias"]}, tmp_path / name)
  with pytest.raises(WeightFileError, match=rf"{name} does not hold 'b\.bias'"):
    weight_files.open_weights(tmp_path)


@pytest.mark.parametrize(
  "shard", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "a\\b", 3]
)
def test_a_shard_stays_in_its_folder(tmp_path, shard):
  (tmp_path / weight_files.INDEX).write_text(
    json.dumps({"weight_map": {"t": shard}})
  )
  with pytest.raises(WeightFileError, match="no plain file name"):
    weight_files.open_weights(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', "\x00"])
def test_an_index_that_is_none_is_refused(tmp_path, text):
  (tmp_path / weight_files.INDEX).write_text(text)
  with pytest.raises(WeightFileError, match="no index of weights"):
    weight_files.open_weights(tmp_path)


def test_a_folder_without_weights_says_so(tmp_path):
  with pytest.raises(WeightFileError, match="holds no weights"):
    weight_files.open_weights(tmp_path)


def test_the_first_format_of_the_order_is_read(
  old, tmp_path, assert_tensors_equal
):
  shutil.copy(old / "flax/flax_decoder/flax_model.msgpack", tmp_path)
  shutil.copy(old / "tf/tf_decoder/tf_model.h5", tmp_path)
  flax_wins = weight_files.open_weights(tmp_path)
  assert_tensors_equal(
    flax_wins, weight_files.open_weights(old / "flax/flax_decoder")
  )
  torch.save({"t": torch.ones(1)}, tmp_path / "pytorch_model.bin")
  assert set(weight_files.open_weights(tmp_path)) == {"t"}
  safetensors.numpy.save_file(
    {"s": np.ones(1, np.float32)}, tmp_path / weight_files.SINGLE
  )
  assert set(weight_files.open_weights(tmp_path)) == {"s"}
