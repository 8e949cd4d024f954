"""A small model learns to read real text, in a fraction of the quickstart."""

import os
import re
import subprocess
import sys

import pytest


@pytest.mark.sample(1, group="whole runs")
def test_true_sources_are_worth_more_than_permuted_ones(tmp_path, full, count):
  """The order alone: the quickstart itself prints by how much."""
  flags = [
    "--config=configs/quickstart.py",
    f"--workdir={tmp_path}/run",
    f"--config.train.steps={count(250, 1750)}",
    "--config.train.checkpoint_every_steps=0",
    "--config.optim.warmup_steps=50",
    "--config.data.eval=valid=pydoc@valid[:50]",
    f"--config.data.test=test=pydoc@test{'' if full else '[:200]'}",
  ]
  no_texts = ["--config.eval.text_examples=-1"]
  # Few steps show in the loss, and in texts by chance.
  for more in (no_texts, ["--mode=eval", *(() if full else no_texts)]):
    done = subprocess.run(
      [sys.executable, "main.py", *flags, *more],
      # What compiles quickly computes slowly: as users run it.
      env=os.environ | {"XLA_FLAGS": ""},
      capture_output=True,
      text=True,
      timeout=550,
    )
    assert done.returncode == 0, done.stderr[-3000:]
  row = {
    name: float(value)
    for name, value in re.findall(r"^eval/(\S+) (\S+)$", done.stdout, re.M)
  }
  assert row["test/loss"] < row["test_permuted/loss"]
  assert row["test_gain/loss_low"] > 0
  if full:
    assert row["test/rougeL"] > row["test_permuted/rougeL"]
