"""Files of transformers' Flax and TensorFlow classes, and damage to any file.

`fixtures/old_weights.py` made the files, and says how.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import h5py
import jax
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy
import torch

from encdec import FlaxEncoderDecoderModel
from encdec.hub import WeightFileError
from encdec.hub.files import formats
from encdec.hub.files import msgpack as msgpack_lib
from encdec.hub.files.repo import Origin

FRAMEWORKS = ["flax", "tf"]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
  """The folders that the old classes wrote."""
  folder = tmp_path_factory.mktemp("old")
  # Python 3.11 has filters from 3.11.4 on.
  checked: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
  for framework in FRAMEWORKS:
    archive = Path(__file__).parents[1] / f"fixtures/{framework}.tar.xz"
    with tarfile.open(archive) as tar:
      tar.extractall(folder, **checked)
  return folder


def _expected(old, framework):
  return np.load(old / framework / "expected.npz")


def _logits(model, expected):
  names = ("input_ids", "attention_mask", "decoder_input_ids")
  return model(*(expected[name] for name in names)).logits


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("kind", ["pair", "safetensors"])
def test_a_pair_computes_what_it_did(old, framework, kind):
  model = FlaxEncoderDecoderModel.from_pretrained(
    old / framework / f"{framework}_{kind}"
  )
  assert model.loading_report.summary() == "every tensor was read"
  expected = _expected(old, framework)
  found = _logits(model, expected)
  np.testing.assert_allclose(found, expected["pair"], atol=1e-4)
  assert np.abs(found - expected["pair"][::-1]).max() > 0.1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_halves_compute_what_they_did(old, framework):
  """The encoder lies in shards; a decoder alone had no cross-attention."""
  folder = old / framework
  model = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(
    folder / f"{framework}_encoder", folder / f"{framework}_decoder"
  )
  out = model.params["decoder"]["layers"]["cross_attention"]["out"]
  out["kernel"] = jnp.zeros_like(out["kernel"])
  expected = _expected(old, framework)
  encoded = model.encode(expected["input_ids"], expected["attention_mask"])
  np.testing.assert_allclose(
    encoded.last_hidden_state, expected["encoder"], atol=1e-4
  )
  np.testing.assert_allclose(
    _logits(model, expected), expected["decoder"], atol=1e-4
  )


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
  tensors = formats.open_weights(tmp_path)
  assert {array.dtype.name for array in tensors.values()} == {dtype}
  model = FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(model.params)} == {
    "float32"
  }
  wanted = formats.open_weights(source)
  assert_tensors_equal(tensors, {n: a.astype(dtype) for n, a in wanted.items()})


def test_kernels_are_turned_without_a_copy(old):
  folder = old / "flax/flax_pair"
  raw = (folder / "flax_model.msgpack").read_bytes()
  flat = flax.traverse_util.flatten_dict(
    flax.serialization.msgpack_restore(raw), sep="."
  )
  tensors = formats.open_weights(folder)
  name = "encoder.encoder.layer.0.intermediate.dense"
  np.testing.assert_array_equal(
    tensors[f"{name}.weight"], flat[f"{name}.kernel"].T
  )
  again = tensors[f"{name}.weight"]
  assert np.shares_memory(again, tensors[f"{name}.weight"])


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
    formats.open_weights(tmp_path),
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
    formats.open_weights(tmp_path)


def test_maps_that_claim_to_be_huge_are_refused(tmp_path):
  (tmp_path / "flax_model.msgpack").write_bytes(b"\xdf\xff\xff\xff\xff")
  with pytest.raises(WeightFileError, match="too wide"):
    formats.open_weights(tmp_path)


def _plain(file):
  file.create_dataset("bert/embeddings/weight:0", data=np.ones((2, 3), "f4"))


def _compressed(file):
  file.create_dataset("a/b:0", data=np.ones(99, "f4"), compression="gzip")


def _chunks(file):
  file.create_dataset("a/b:0", data=np.ones(99, "f4"), chunks=(9,))


def _external_link(file):
  file["a"] = h5py.ExternalLink("/etc/passwd", "x")


def _soft_link(file):
  file["a"] = h5py.SoftLink("/b")


def _external_values(file):
  file.create_dataset("a/b:0", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def _strings(file):
  file.create_dataset("a/b:0", data="text")


def _never_written(file):
  file.create_dataset("a/b:0", (10**9, 10**6), "f4")


def _cycle(file):
  file.create_group("a/b")
  file["a/b/c"] = file["a"]


@pytest.mark.parametrize(
  "write",
  [
    _compressed,
    _chunks,
    _external_link,
    _soft_link,
    _external_values,
    _strings,
    _never_written,
    _cycle,
  ],
)
def test_what_keras_does_not_write_is_refused(tmp_path, write):
  path = tmp_path / "tf_model.h5"
  with h5py.File(path, "w") as file:
    _plain(file)
  assert set(formats.open_weights(tmp_path)) == {"bert.embeddings.weight"}
  with h5py.File(path, "a") as file:
    write(file)
  with pytest.raises(WeightFileError, match=r"tf_model\.h5"):
    formats.open_weights(tmp_path)


def test_many_members_and_kinds_of_hdf5_are_read(
  tmp_path, seed, assert_tensors_equal
):
  """More than one node of a group's tree holds."""
  rng = np.random.default_rng(seed)
  wanted = {
    f"layer.{n}.bias": rng.normal(size=(n % 4,)).astype(
      ("f2", "f4", "f8")[n % 3]
    )
    for n in range(400)
  }
  with h5py.File(tmp_path / "tf_model.h5", "w") as file:
    file.attrs["names"] = ["x" * 50] * 600
    for name, array in wanted.items():
      _, number, leaf = name.split(".")
      file.create_dataset(f"layer_._{number}/{leaf}:0", data=array)
  found = formats.open_weights(tmp_path)
  assert_tensors_equal(found, wanted)


def test_the_first_format_of_the_order_is_read(
  old, tmp_path, assert_tensors_equal
):
  shutil.copy(old / "flax/flax_decoder/flax_model.msgpack", tmp_path)
  shutil.copy(old / "tf/tf_decoder/tf_model.h5", tmp_path)
  flax_wins = formats.open_weights(tmp_path)
  assert_tensors_equal(
    flax_wins, formats.open_weights(old / "flax/flax_decoder")
  )
  torch.save({"t": torch.ones(1)}, tmp_path / "pytorch_model.bin")
  assert set(formats.open_weights(tmp_path)) == {"t"}
  safetensors.numpy.save_file(
    {"s": np.ones(1, np.float32)}, tmp_path / formats.SINGLE
  )
  assert set(formats.open_weights(tmp_path)) == {"s"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_shards_in_a_cache_of_the_hub_are_read(
  old, tmp_path, framework, assert_tensors_equal
):
  source = old / framework / f"{framework}_encoder"
  root = tmp_path / "models--somebody--half"
  snapshot = root / "snapshots" / "0123456789abcdef"
  shutil.copytree(source, snapshot)
  (root / "refs").mkdir()
  (root / "refs" / "main").write_text(snapshot.name)
  origin = Origin("somebody/half", cache_dir=str(tmp_path))
  assert_tensors_equal(origin.weights(), formats.open_weights(source))
  next(snapshot.glob("*00002-of-*")).unlink()
  with pytest.raises(WeightFileError, match=r"lacks the shard .*00002-of"):
    origin.weights()
  for path in snapshot.glob("*.index.json"):
    path.unlink()
  with pytest.raises(WeightFileError, match=r"none of .*pytorch_model\.bin"):
    origin.weights()


@pytest.fixture(scope="module")
def samples(old):
  """A small whole file of each format."""
  return {
    "flax_model.msgpack": old / "flax/flax_decoder/flax_model.msgpack",
    "tf_model.h5": old / "tf/tf_decoder/tf_model.h5",
    formats.SINGLE: old / "flax/flax_safetensors" / formats.SINGLE,
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
  (formats.SINGLE, None),
  ("pytorch_model.bin", True),
  ("pytorch_model.bin", False),
  ("flax_model.msgpack", None),
  ("tf_model.h5", None),
]


def _read_all(folder):
  """All values, as far as there are any; only the one error is raised."""
  try:
    tensors = formats.open_weights(folder)
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
      formats.open_weights(tmp_path)


def test_shards_of_tensorflow_are_found_under_the_models_name(old, tmp_path):
  folder = tmp_path / "tf"
  shutil.copytree(old / "tf/tf_encoder", folder)
  index = folder / "tf_model.h5.index.json"
  values = json.loads(index.read_text())
  assert all(name.startswith("tf_bert") for name in values["weight_map"])
  shard = values["weight_map"][next(iter(values["weight_map"]))]
  values["weight_map"]["tf_bert_model/bert/other:0"] = shard
  formats.open_weights(folder)
  index.write_text(json.dumps(values))
  with pytest.raises(WeightFileError, match="bert/other"):
    formats.open_weights(folder)
