"""A prediction that is killed and started again ends as one that was not."""

import json
import pathlib
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from configs import dates
from train import loop
from train.modes import predict
from train.workdir import recorded_config

_ROOT = pathlib.Path(__file__).parents[3]
# Up to eleven processes, each of which imports and compiles.
pytestmark = pytest.mark.timeout(1800)


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def pairs_count() -> int:
  return 300


@pytest.fixture
def config(tiny_config):
  """Texts of one word to 24, of sources in two buckets."""
  # Unlike the others' decoder, at random it ends some of its texts early.
  tiny_config.model.decoder = "bert:tiny"
  tiny_config.data.max_target_length = 24
  tiny_config.data.source_buckets = (6, 16)
  tiny_config.data.target_buckets = (24, 24)
  tiny_config.train.eval_every_steps = 4
  tiny_config.train.checkpoint_every_steps = 4
  tiny_config.eval.text_examples = -1
  # Lines come in many stretches: a window is of sixteen batches.
  tiny_config.eval.batch_size = 2
  return tiny_config


def _command(config, tmp_path) -> list[str]:
  smoke = recorded_config.json_values(dates.get_config("smoke"))
  mine = recorded_config.json_values(config)
  return [
    sys.executable,
    "main.py",
    "--mode=predict",
    "--config=configs/dates.py:smoke",
    f"--workdir={tmp_path / 'run'}",
    f"--input={tmp_path / 'pairs.jsonl'}",
    f"--output={tmp_path / 'killed.jsonl'}",
    *(
      f"--config.{key}={value}"
      for key, value in mine.items()
      if value != smoke[key]
    ),
  ]


def _lines(path: pathlib.Path) -> int:
  return path.read_bytes().count(b"\n") if path.exists() else -1


@pytest.mark.sample(1, group="whole runs")
def test_a_killed_prediction_ends_as_one_that_was_not(
  config, tmp_path, one_device, one_device_env, count, seed
):
  loop.run(config, str(tmp_path / "run"))
  source = str(tmp_path / "pairs.jsonl")
  whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
  options = {"source": source, "output": str(whole)}
  predict.run(config, str(tmp_path / "run"), **options)
  expected = read(whole)
  lengths = {len(row["prediction"].split()) for row in expected}
  assert len(lengths) > 5, "rows should end here and there"

  draw = random.Random(seed)
  partial = tmp_path / "killed.jsonl.partial"
  command = _command(config, tmp_path)
  kills = count(2, 10)
  for kill in range(kills + 1):
    before = _lines(partial)
    with subprocess.Popen(
      command,
      cwd=_ROOT,
      env=one_device_env,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    ) as process:
      try:
        if kill == kills:
          log, _ = process.communicate()
          assert process.returncode == 0, log
          break
        # By turns at any moment of the start, and while lines are written.
        if kill % 2:
          while _lines(partial) <= max(0, before) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.05 if kill % 2 else 3.0))
        assert process.poll() in (None, 0), process.communicate()[0]
      finally:
        process.kill()
    if killed.exists():
      # It had ended when the kill came.
      break
  assert 2 * kill >= kills, "the kills came too late"
  assert not partial.exists()

  found = read(killed)
  for name in ("id", "source", "prediction"):
    assert [row[name] for row in found] == [row[name] for row in expected]
  np.testing.assert_allclose(
    [row["score"] for row in found],
    [row["score"] for row in expected],
    atol=1e-4,
  )
