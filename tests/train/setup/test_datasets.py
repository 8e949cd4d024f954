"""The sets of a run: mixtures, and pairs that are not held out."""

import logging

import numpy as np
import pytest

from data.schemes import files
from data.store import source_cache
from train import start
from train.errors import Refusal
from train.processes import agreement
from train.setup import datasets
from train.setup.task import build_task, record_task
from train.workdir import recorded_config

from .conftest import write_words


def test_a_mixture_holds_its_shares(tiny_config, tmp_path):
  uris = [write_words(tmp_path / name, name * 2, name * 3) for name in "ab"]
  tiny_config.data.train = f"3*{uris[0]},1*{uris[1]}"
  datasets.check(tiny_config, tmp_path)
  task = build_task(tiny_config, tmp_path / "run")
  pairs = datasets.train_pairs(tiny_config, task, tmp_path / "run")
  pipeline = datasets.train_pipeline(tiny_config, pairs, tmp_path / "run")
  steps = range(1000 // pipeline.batch_size)
  seen = [i for step in steps for i in pipeline.members(step)]
  assert [sum(i // 2 == part for i in seen) for part in (0, 1)] == [750, 250]


@pytest.fixture
def sets(tmp_path, tiny_config):
  """A configuration whose sets overlap, and its sets."""
  words = [f"word {i}" for i in range(10)]
  data = tiny_config.data
  data.train = write_words(tmp_path / "train", *words)
  data.eval = (
    f"v={write_words(tmp_path / 'v', 'new one', *words[:2])},"
    f"w={write_words(tmp_path / 'w', 'new', 'newer')}"
  )
  data.test = f"t={write_words(tmp_path / 't', words[7])}"
  task = build_task(tiny_config, tmp_path / "run")
  pairs = datasets.train_pairs(tiny_config, task, tmp_path / "run")
  return (
    tiny_config,
    pairs,
    datasets.held_out(tiny_config, task, tmp_path / "run", data.eval),
  )


def test_pairs_that_are_not_held_out_are_reported(sets, tmp_path, caplog):
  with caplog.at_level(logging.WARNING):
    datasets.warn_of_duplicates(*sets, tmp_path)
  first, second = (record.getMessage() for record in caplog.records)
  assert first.startswith(
    "data.eval v: 2 of 3 pairs (66.7%) stand in the training data"
  )
  assert "v: line 2 is" in first and first.endswith("train: line 1")
  assert first.count("\n") == 0
  # The sets of --mode=eval are looked at too.
  assert (
    second.startswith("data.test t: 1 of 1 pairs") and "train: line 8" in second
  )


@pytest.mark.usefixtures("one_device")
def test_a_run_that_goes_on_does_not_look_again(tiny_config, tmp_path, caplog):
  folder = tmp_path / "run"
  with caplog.at_level(logging.WARNING):
    this = start.build_run(tiny_config, folder)
    assert "data.eval valid: 21 of 21 pairs (100.0%) stand" in caplog.text
    # As `start.begin` does.
    record_task(this.task, folder)
    recorded_config.record(tiny_config, folder, {}, 0)
    caplog.clear()
    start.build_run(tiny_config, folder)
  assert "stand in the training data" not in caplog.text


@pytest.mark.usefixtures("one_device")
def test_a_start_reads_a_file_through_once(tiny_config, tmp_path, monkeypatch):
  lines, scans = files.Bytes.lines, []

  def counted(self, file):
    scans.append(self.paths[file])
    return lines(self, file)

  monkeypatch.setattr(files.Bytes, "lines", counted)
  source_cache._opened.cache_clear()
  # The held-out set is a slice of the same file.
  tiny_config.data.test = tiny_config.data.eval
  # Trains tokenizers, prepares, looks for duplicates.
  this = start.build_run(tiny_config, tmp_path / "run")
  assert scans == [f"{tmp_path}/pairs.jsonl"]
  record_task(this.task, this.folder)
  recorded_config.record(this.config, this.folder, {}, 0)
  # Whoever goes on, in another process, reads none of it.
  source_cache._opened.cache_clear()
  start.build_run(tiny_config, tmp_path / "run")
  assert len(scans) == 1


def test_hosts_whose_files_differ_are_refused(
  tiny_config, tmp_path, monkeypatch
):
  task = build_task(tiny_config, tmp_path / "run")
  datasets.train_pairs(tiny_config, task, tmp_path / "run")
  # What the other host has is not what this one has.
  monkeypatch.setattr(
    agreement.multihost_utils,
    "process_allgather",
    lambda mine: np.stack([mine, mine[::-1]]),
  )
  with pytest.raises(Refusal, match=r"pairs\.jsonl of process 1 is not that"):
    datasets.train_pairs(tiny_config, task, tmp_path / "run")
