"""Tensors of several dtypes, and how they are written and compared."""

import ml_dtypes
import numpy as np
import pytest

from encdec.hub.files.safetensors_writer import TensorToWrite, write_weights


@pytest.fixture
def make_tensors():
  """A function of a seed to name and array."""

  def make(seed):
    rng = np.random.default_rng(seed)
    return {
      "a.weight": rng.normal(size=(3, 5)).astype(np.float32),
      "b.bias": rng.normal(size=(7,)).astype(ml_dtypes.bfloat16),
      "c.half": rng.normal(size=(2, 2)).astype(np.float16),
      "d.empty": np.zeros((0, 4), np.float32),
      "e.scalar": np.array(3.5, np.float32),
    }

  return make


@pytest.fixture
def write_tensors():
  """Writes a folder's weights, in shards where they exceed a limit."""

  def write(folder, tensors, limit="1GB"):
    to_write = [
      TensorToWrite(name, a.shape, a.dtype, lambda a=a: a)
      for name, a in tensors.items()
    ]
    write_weights(folder, to_write, limit)

  return write


@pytest.fixture
def assert_tensors_equal():
  """Fails unless names, dtypes and values are the same."""

  def check(found, wanted):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
      assert found[name].dtype == array.dtype
      np.testing.assert_array_equal(found[name], array)

  return check
