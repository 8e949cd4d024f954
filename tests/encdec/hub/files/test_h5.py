"""HDF5 files of TensorFlow classes: what Keras writes is read, no more."""

import json
import shutil

import h5py
import numpy as np
import pytest

from encdec.hub import WeightFileError
from encdec.hub.files import weight_files


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
  assert set(weight_files.open_weights(tmp_path)) == {"bert.embeddings.weight"}
  with h5py.File(path, "a") as file:
    write(file)
  with pytest.raises(WeightFileError, match=r"tf_model\.h5"):
    weight_files.open_weights(tmp_path)


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
  found = weight_files.open_weights(tmp_path)
  assert_tensors_equal(found, wanted)


def test_shards_of_tensorflow_are_found_under_the_models_name(old, tmp_path):
  folder = tmp_path / "tf"
  shutil.copytree(old / "tf/tf_encoder", folder)
  index = folder / "tf_model.h5.index.json"
  values = json.loads(index.read_text())
  assert all(name.startswith("tf_bert") for name in values["weight_map"])
  shard = values["weight_map"][next(iter(values["weight_map"]))]
  values["weight_map"]["tf_bert_model/bert/other:0"] = shard
  weight_files.open_weights(folder)
  index.write_text(json.dumps(values))
  with pytest.raises(WeightFileError, match="bert/other"):
    weight_files.open_weights(folder)
