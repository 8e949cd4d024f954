"""Metrics of a step are read one step late, and stop what is not finite."""

import logging
import types

import jax
import numpy as np
import pytest

from train.progress.step_reader import NonFiniteLoss, RunTotals, StepReader


def _metrics(loss=2.0, finite=True):
  values = {"pairs": 8, "source_tokens": 50, "target_tokens": 30}
  values |= {"loss": loss, "grad_norm": 1.0, "finite": finite}
  return {k: jax.device_put(np.float32(v)) for k, v in values.items()}


@pytest.fixture
def reader():
  totals = RunTotals(step=3, pairs=24.0)
  explain = "the pairs of step {}".format
  made = StepReader(totals, total=6, log_every=2, explain=explain)
  yield made
  made.close()


def test_rows_come_every_few_steps_and_at_the_end(reader):
  assert reader.read() == {}
  rows = []
  for step in (4, 5, 6):
    reader.put(step, _metrics(loss=float(step)), flops=1.0)
    # Launched, and not yet counted.
    assert reader.progress.step == step - 1
    rows.append(reader.read())
    assert reader.progress.step == step and reader.read() == {}
  assert [row.get("train/loss") for row in rows] == [4.0, None, 6.0]
  # Of all steps of the run, those without a row and before it too.
  assert [row.get("train/pairs") for row in rows] == [32.0, None, 48.0]
  assert "train/finite" not in rows[0]


def test_the_last_step_has_a_row_whatever_its_number():
  for total, rows in ((5, 1), (6, 0)):
    made = StepReader(RunTotals(), total=total, log_every=4, explain=str)
    made.put(5, _metrics(), flops=1.0)
    assert ("train/loss" in made.read()) == rows
    made.close()


def test_a_step_that_is_not_finite_does_not_count(reader):
  reader.put(4, _metrics(loss=float("nan"), finite=False), flops=1.0)
  with pytest.raises(
    NonFiniteLoss, match=r"^step 4: loss nan, .* 1\.0; the pairs of step 4$"
  ):
    reader.read()
  assert reader.progress == RunTotals(step=3, pairs=24.0)


def _device(device_kind, platform="gpu"):
  return types.SimpleNamespace(device_kind=device_kind, platform=platform)


def test_a_run_says_once_that_a_peak_is_unknown(monkeypatch, caplog):
  def start(devices):
    monkeypatch.setattr(jax, "devices", lambda: devices)
    reader = StepReader(RunTotals(), total=1, log_every=1, explain=str)
    reader.close()

  with caplog.at_level(logging.INFO):
    start([_device("NVIDIA H200")])
    start([_device("cpu", "cpu")])
    assert not caplog.messages
    start([_device("NVIDIA X1"), _device("NVIDIA H200"), _device("NVIDIA X1")])
  (said,) = caplog.messages
  assert "no time/mfu" in said and "'NVIDIA H200' and 'NVIDIA X1'" in said
