"""Inspection prints what training would see, and computes nothing else."""

import json

import pytest

from train.errors import Refusal
from train.modes import inspect
from train.setup import datasets
from train.setup.task import build_task


def test_what_is_printed(tiny_config, tmp_path, capsys, compilations):
  config, folder = tiny_config, tmp_path / "run"
  config.data.source_buckets = (8, 16)
  config.data.target_buckets = (4, 8)
  inspect.run(config, str(folder))
  out = capsys.readouterr().out
  assert not compilations
  # What training would make too, and no more.
  made = {path.name for path in folder.iterdir()}
  assert made == {"tokenizers", "store"}
  assert out.count("-- row ") == 5
  assert "61 pairs measured, of 61 records" in out
  assert "data.max_source_length = 16 truncates 0.0%" in out
  for name in ("all rows 16 x 8", "none: 8 x 4, 16 x 8", "bucket: 8 x 4, 16"):
    assert f"\n  {name}" in out
  assert out.count("--config.data.pack_source_length=") == 2

  task = build_task(config, folder)
  pairs = datasets.train_pairs(config, task, folder)
  batch = datasets.train_pipeline(config, pairs, folder).batch(0)
  first = out.split("-- row ")[1]
  targets = batch["decoder_targets"][0][batch["decoder_segments"][0] > 0]
  (line,) = [x for x in first.splitlines() if x.startswith("decoder_targets")]
  assert [int(cell) for cell in line.split()[1:]] == targets.tolist()


def test_a_mixture_is_measured_by_its_shares(tiny_config, tmp_path):
  for name, count, text in (("a", 30, "red"), ("b", 500, "red " * 9)):
    line = json.dumps({"source": text, "target": "blue"}) + "\n"
    (tmp_path / name).write_text(line * count)
  tiny_config.data.train = f"3*jsonl:{tmp_path}/a,1*jsonl:{tmp_path}/b"
  task = build_task(tiny_config, tmp_path / "run")
  pairs = datasets.train_pairs(tiny_config, task, tmp_path / "run")
  lengths, records = inspect._measure(tiny_config, task, pairs)
  short = (lengths.source < 9).sum()
  assert (len(lengths), short, records) == (40, 30, 530)


def test_what_cannot_be_run_is_refused(tiny_config, tmp_path):
  tiny_config.data.train = f"jsonl:{tmp_path}/absent"
  with pytest.raises(Refusal, match="there is no such file"):
    inspect.run(tiny_config, str(tmp_path / "run"))
