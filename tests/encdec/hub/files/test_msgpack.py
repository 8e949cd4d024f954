"""Msgpack files of Flax classes: read without copies, hostile ones refused."""

import shutil

import flax.serialization
import flax.traverse_util
import jax
import ml_dtypes
import msgpack
import numpy as np
import pytest

from encdec import FlaxEncoderDecoderModel
from encdec.hub import WeightFileError
from encdec.hub.files import msgpack as msgpack_lib
from encdec.hub.files import weight_files


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_numbers_of_any_kind_are_read(
  old, tmp_path, dtype, assert_tensors_equal
):
  """As bfloat16 and float16 were written by `to_bf16` and `to_fp16`."""
  source = old / "flax/flax_pair"
  shutil.copy(source / "config.json", tmp_path)
  raw = (source / "flax_model.msgpack").read_bytes()
  tree = jax.tree.map(
    lambda leaf: leaf.astype(dtype), flax.serialization.msgpack_restore(raw)
  )
  (tmp_path / "flax_model.msgpack").write_bytes(
    flax.serialization.to_bytes(tree)
  )
  tensors = weight_files.open_weights(tmp_path)
  assert {array.dtype.name for array in tensors.values()} == {dtype}
  model = FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(model.params)} == {
    "float32"
  }
  wanted = weight_files.open_weights(source)
  assert_tensors_equal(tensors, {n: a.astype(dtype) for n, a in wanted.items()})


def test_arrays_in_chunks_are_joined(
  tmp_path, monkeypatch, seed, assert_tensors_equal
):
  monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 40)
  rng = np.random.default_rng(seed)
  tree = {
    "a": {"kernel": rng.normal(size=(7, 5)).astype(np.float32)},
    "b": {"bias": rng.normal(size=3).astype(ml_dtypes.bfloat16)},
  }
  raw = flax.serialization.to_bytes(tree)
  assert b"__msgpack_chunked_array__" in raw
  (tmp_path / "flax_model.msgpack").write_bytes(raw)
  assert_tensors_equal(
    weight_files.open_weights(tmp_path),
    {"a.weight": tree["a"]["kernel"].T, "b.bias": tree["b"]["bias"]},
  )


def _array(shape=(2,), dtype="float32", held=8, kind=1):
  return msgpack.ExtType(kind, msgpack.packb((shape, dtype, bytes(held))))


def _deep(levels):
  return _array() if not levels else {"a": _deep(levels - 1)}


@pytest.mark.parametrize(
  "tree",
  [
    [1],
    3,
    {"t": "text"},
    {"t": None},
    {"t": 1.5},
    {1: _array()},
    {"t": _array(kind=3)},
    {"t": _array(shape=(3,))},
    {"t": _array(shape=(1,))},
    {"t": _array(shape=(1 << 62, 1 << 62))},
    {"t": _array(shape=(-1, -2))},
    {"t": _array(shape=(0, 1 << 63), held=0)},
    {"t": _array(shape=(1,) * 65, held=4)},
    {"t": _array(dtype="object")},
    {"t": msgpack.ExtType(1, b"")},
    _deep(40),
    {"a": {"b": _array()}, "a/b": _array()},
    {"t": {"__msgpack_chunked_array__": True}},
    {
      "t": {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 1 << 40},
        "chunks": {"0": _array()},
      }
    },
  ],
)
def test_a_tree_that_is_none_of_arrays_is_refused(tmp_path, tree):
  path = tmp_path / "flax_model.msgpack"
  path.write_bytes(msgpack.packb({"t": _array()}))
  assert set(msgpack_lib.read_msgpack(path)) == {"t"}
  path.write_bytes(msgpack.packb(tree))
  with pytest.raises(WeightFileError, match=r"flax_model\.msgpack"):
    weight_files.open_weights(tmp_path)


def test_maps_that_claim_to_be_huge_are_refused(tmp_path):
  (tmp_path / "flax_model.msgpack").write_bytes(b"\xdf\xff\xff\xff\xff")
  with pytest.raises(WeightFileError, match="too wide"):
    weight_files.open_weights(tmp_path)
