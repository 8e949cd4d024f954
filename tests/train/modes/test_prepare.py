"""--mode=prepare makes what a run then reads, and checks it to the byte."""

import pytest

from configs import dates
from data.store import encoding
from train.errors import Refusal
from train.modes import prepare
from train.setup import datasets
from train.setup.task import build_task, restore_task


def test_a_run_reads_what_was_prepared(
  tiny_config, tmp_path, capsys, monkeypatch
):
  folder, store = tmp_path / "run", tmp_path / "store"
  tiny_config.data.test = tiny_config.data.eval
  tiny_config.data.store = str(store)
  prepare.run(tiny_config, str(folder))
  printed = capsys.readouterr().out
  names = [p.name for p in store.iterdir() if p.is_dir()]
  assert len(names) == 2
  assert f"{tiny_config.data.train}: 61 pairs\n" in printed
  assert printed.count(".jsonl@all[:21]: 21 pairs\n") == 1
  for name in names:
    assert f" MB in {store / name}, checksums verified\n" in printed
  # No run has begun, and nothing is tokenised again.
  assert {path.name for path in folder.iterdir()} == {"tokenizers"}
  monkeypatch.setattr(encoding.Encoding, "examples", None)
  prepare.run(tiny_config, str(folder))
  assert capsys.readouterr().out == printed
  task = build_task(tiny_config, folder)
  assert len(datasets.train_pairs(tiny_config, task, folder)) == 61


def test_the_store_of_a_run_lies_in_its_folder(finished):
  config, folder, _ = finished
  names = [p.name for p in (folder / "store").iterdir() if p.is_dir()]
  task = restore_task(config, folder)
  (pairs,) = datasets.train_pairs(config, task, folder).parts
  assert len(names) == 2 and pairs.folder.name in names
  assert pairs.folder.parent == folder / "store"


def test_a_damaged_store_is_refused_by_name(tiny_config, tmp_path):
  prepare.run(tiny_config, str(tmp_path / "run"))
  path = next((tmp_path / "run/store").glob("*/shard-*"))
  damaged = bytearray(path.read_bytes())
  damaged[len(damaged) // 2] ^= 1
  path.write_bytes(damaged)
  with pytest.raises(Refusal, match=f"{path}: .*remove the folder"):
    prepare.run(tiny_config, str(tmp_path / "run"))


def test_ids_of_another_model_are_not_prepared_in_a_run(finished):
  folder = finished[1]
  other = dates.get_config("smoke")
  other.data.target_vocab_size = 999
  with pytest.raises(Refusal, match=r"data\.target_vocab_size"):
    prepare.run(other, str(folder))


def test_a_bucket_is_no_store(tiny_config, tmp_path):
  tiny_config.data.store = "gs://bucket/store"
  with pytest.raises(Refusal, match=r"'gs://bucket/store'.*a folder"):
    prepare.run(tiny_config, str(tmp_path / "run"))
