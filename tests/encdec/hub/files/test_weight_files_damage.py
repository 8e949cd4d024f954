"""A damaged or cut file of any format raises WeightFileError, nothing else."""

import shutil

import numpy as np
import pytest
import torch

from encdec.hub import WeightFileError
from encdec.hub.files import weight_files


@pytest.fixture(scope="module")
def samples(old):
  """A small whole file of each format."""
  return {
    "flax_model.msgpack": old / "flax/flax_decoder/flax_model.msgpack",
    "tf_model.h5": old / "tf/tf_decoder/tf_model.h5",
    weight_files.SINGLE: old / "flax/flax_safetensors" / weight_files.SINGLE,
  }


def _state():
  torch.manual_seed(0)
  return {f"layer.{n}": torch.randn(3, n) for n in range(8)}


def _sample(samples, folder, name, zipped):
  path = folder / name
  if name in samples:
    shutil.copy(samples[name], path)
  else:
    torch.save(_state(), path, _use_new_zipfile_serialization=zipped)
  return path, path.read_bytes()


ALL = [
  (weight_files.SINGLE, None),
  ("pytorch_model.bin", True),
  ("pytorch_model.bin", False),
  ("flax_model.msgpack", None),
  ("tf_model.h5", None),
]


def _read_all(folder):
  """All values, as far as there are any; only the one error is raised."""
  try:
    tensors = weight_files.open_weights(folder)
    return sum(tensors[name].size for name in tensors)
  except WeightFileError as error:
    rest = str(error).replace(str(folder), "")
    assert rest != str(error) and len(rest) < 500, error
    return 0


@pytest.mark.parametrize(("name", "zipped"), ALL)
def test_damage_raises_no_other_error(
  tmp_path, samples, name, zipped, seed, count
):
  path, whole = _sample(samples, tmp_path, name, zipped)
  healthy = _read_all(tmp_path)
  assert healthy
  rng = np.random.default_rng(seed)
  # Half of the damage where headers are, which is what is parsed.
  for trial in range(count(100, 4000)):
    raw = bytearray(whole)
    most = len(raw) if trial % 2 else min(len(raw), 3000)
    for place in rng.integers(0, most, rng.integers(1, 6)):
      raw[place] = rng.integers(256)
    path.write_bytes(raw)
    assert _read_all(tmp_path) <= 16 * len(raw) + healthy


@pytest.mark.parametrize(("name", "zipped"), ALL)
def test_a_cut_file_is_an_error(tmp_path, samples, name, zipped, count):
  path, whole = _sample(samples, tmp_path, name, zipped)
  cuts = {*range(0, len(whole), len(whole) // count(40, 400)), 1, 9}
  for kept in cuts:
    path.write_bytes(whole[:kept])
    with pytest.raises(WeightFileError):
      weight_files.open_weights(tmp_path)
