"""Files of a model in the Hub's cache are read, and missing ones named."""

import os
import shutil

import jax
import numpy as np
import pytest

from encdec import FlaxEncoderDecoderModel
from encdec.hub import (
  WeightFileError,
  generation_config_of,
  load_params,
)
from encdec.hub.files import weight_files
from encdec.hub.files.repo import Origin


def test_a_hub_cache_with_shards_and_links_is_read(tiny, tmp_path):
  """The Hub's cache: a snapshot of links into a folder of blobs."""
  source = tmp_path / "source"
  tiny.save_pretrained(source, max_shard_size="10KB")
  root = tmp_path / "cache" / "models--somebody--pair"
  snapshot = root / "snapshots" / "0123456789abcdef"
  for folder in (root / "refs", root / "blobs", snapshot):
    folder.mkdir(parents=True)
  (root / "refs" / "main").write_text("0123456789abcdef")
  for number, path in enumerate(sorted(source.iterdir())):
    blob = root / "blobs" / str(number)
    blob.write_bytes(path.read_bytes())
    os.symlink(f"../../blobs/{number}", snapshot / path.name)
  # The tests' environment is offline, which is enough to read a cache.
  (snapshot / "generation_config.json").rename(tmp_path / "later")
  where: dict = {"cache_dir": str(tmp_path / "cache")}
  assert generation_config_of("somebody/pair", **where) is None
  FlaxEncoderDecoderModel.from_pretrained("somebody/pair", **where)
  (tmp_path / "later").rename(snapshot / "generation_config.json")
  FlaxEncoderDecoderModel.from_pretrained(
    source, config="somebody/pair", **where
  )
  where["local_files_only"] = True
  model = FlaxEncoderDecoderModel.from_pretrained("somebody/pair", **where)
  jax.tree.map(np.testing.assert_array_equal, model.params, tiny.params)
  params, _ = load_params(tiny.module, "somebody/pair", **where)
  jax.tree.map(np.testing.assert_array_equal, params, tiny.params)
  assert generation_config_of("somebody/pair", **where) is not None
  next(snapshot.glob("model-00002-of-*")).unlink()
  with pytest.raises(WeightFileError, match="lacks the shard model-00002-of"):
    FlaxEncoderDecoderModel.from_pretrained("somebody/pair", **where)


FRAMEWORKS = ["flax", "tf"]


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
  assert_tensors_equal(origin.weights(), weight_files.open_weights(source))
  next(snapshot.glob("*00002-of-*")).unlink()
  with pytest.raises(WeightFileError, match=r"lacks the shard .*00002-of"):
    origin.weights()
  for path in snapshot.glob("*.index.json"):
    path.unlink()
  with pytest.raises(WeightFileError, match=r"none of .*pytorch_model\.bin"):
    origin.weights()
