"""The start of a run from a state whose evaluation was interrupted."""

import os
import shutil
import signal
import time

import pytest

from encdec.generation import programs
from tests.train.test_loop import params, rows_of
from train import checkpoint, loop, start
from train.checkpoint import Checkpoints
from train.cli import signals
from train.errors import Refusal
from train.evaluators import loss, text
from train.workdir.metrics_file import read_rows

pytestmark = pytest.mark.usefixtures("one_device")


def stop_in_evaluation(monkeypatch, config, run, step):
  """Runs until a signal comes while `step` is evaluated; gives the status."""
  measure = loss.measure

  def measuring(eval_step, params, batches):
    def signalled():
      for batch in batches:
        yield batch
        if len(rows_of(run)) == step - 1:
          os.kill(os.getpid(), signal.SIGTERM)

    return measure(eval_step, params, signalled())

  with monkeypatch.context() as patch:
    patch.setattr(loss, "measure", measuring)
    with pytest.raises(SystemExit) as stopped:
      loop.run(config, str(run))
  return stopped.value.code


@pytest.mark.parametrize("step", [2, 4])
def test_an_evaluation_that_was_interrupted_is_done_at_the_next_start(
  finished, tmp_path, monkeypatch, step
):
  config, folder, result = finished
  run = tmp_path / "run"
  assert stop_in_evaluation(monkeypatch, config, run, step) == 143
  # Nothing of it looks like a step that was measured.
  assert len(rows_of(run)) == step - 1
  with Checkpoints(run / "checkpoints", writable=False) as checkpoints:
    assert checkpoints.latest_step() == (None if step == 2 else 2)
  assert (run / start.INTERRUPTED / str(step)).is_dir()
  drop = start.drop_interrupted
  saved = []

  def dropping(this):
    # A crash at this moment must lose nothing.
    saved.append((run / "checkpoints" / str(step)).is_dir())
    drop(this)

  monkeypatch.setattr(start, "drop_interrupted", dropping)
  assert loop.run(config, str(run)) == result
  assert saved == [True]
  assert not (run / start.INTERRUPTED).exists()
  assert rows_of(run) == rows_of(folder)
  assert params(config, run) == params(config, folder)
  with Checkpoints(
    run / "checkpoints", best_metric="eval/valid/loss", writable=False
  ) as checkpoints:
    assert checkpoints.metrics(step)


def test_it_may_be_interrupted_again(finished, tmp_path, monkeypatch):
  config, folder, _ = finished
  run = tmp_path / "run"
  for _ in range(2):
    assert stop_in_evaluation(monkeypatch, config, run, 4) == 143
  loop.run(config, str(run))
  assert rows_of(run) == rows_of(folder)


def test_a_state_that_is_no_newer_is_forgotten(finished, tmp_path):
  config, folder, _ = finished
  run = shutil.copytree(folder, tmp_path / "run")
  # As after a crash between saving step 4 and forgetting this.
  shutil.copytree(run / "checkpoints/4", run / start.INTERRUPTED / "4")
  config = config.copy_and_resolve_references()
  config.train.steps = 5
  loop.run(config, str(run))
  assert not (run / start.INTERRUPTED).exists()
  steps = [row["step"] for row in read_rows(run / "metrics.jsonl")]
  assert steps == [1, 2, 3, 4, 5]


def test_a_damaged_state_is_passed_over(finished, tmp_path, monkeypatch):
  config, folder, _ = finished
  run = tmp_path / "run"
  assert stop_in_evaluation(monkeypatch, config, run, 4) == 143
  for path in (run / start.INTERRUPTED / "4/params").rglob("*"):
    if path.is_file():
      path.write_bytes(b"damaged")
  loop.run(config, str(run))
  assert rows_of(run) == rows_of(folder)
  # As that of any other step, it is the user's to look at.
  assert (run / start.INTERRUPTED / "set_aside").is_dir()


def test_a_state_that_this_code_cannot_read_is_kept(
  finished, tmp_path, monkeypatch
):
  config, folder, _ = finished
  run = tmp_path / "run"
  assert stop_in_evaluation(monkeypatch, config, run, 4) == 143
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, "CHECKPOINT_FORMAT", 3)
    with pytest.raises(Refusal, match="has the format 2, this code reads 3"):
      loop.run(config, str(run))
  loop.run(config, str(run))
  assert rows_of(run) == rows_of(folder)


def test_texts_are_no_longer_generated_once_the_run_stops(
  finished, tmp_path, monkeypatch
):
  config, _, _ = finished
  scored = []
  monkeypatch.setattr(
    text.TextMetrics, "measure", lambda _, texts: scored.append(texts) or {}
  )
  stop_in_evaluation(monkeypatch, config, tmp_path / "run", 2)
  assert not scored


class SlowlyCompiled:
  """A program: a signal comes as it begins to compile, which takes long."""

  def __init__(self, program):
    self.program = program

  def lower(self, *args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    return self

  def compile(self):
    time.sleep(5)

  def __call__(self, *args, **kwargs):
    return self.program(*args, **kwargs)


@pytest.mark.parametrize("name", ["run", "encode"])
def test_a_signal_does_not_wait_for_generation_to_compile(
  finished, tmp_path, monkeypatch, name
):
  config, folder, _ = finished
  run, ends = tmp_path / "run", []

  def end(status, sentence):
    ends.append((time.monotonic(), sentence))
    raise SystemExit(status)

  with monkeypatch.context() as patch:
    program = SlowlyCompiled(getattr(programs, name))
    patch.setattr(programs, name, program)
    patch.setattr(signals, "end", end)
    kill, sent = os.kill, []
    record = lambda *given: (sent.append(time.monotonic()), kill(*given))
    patch.setattr(os, "kill", record)
    with pytest.raises(SystemExit) as stopped:
      loop.run(config, str(run))
  assert stopped.value.code == 143
  [(ended, sentence)] = ends
  assert sentence == "stopped: saved step 2; run again to go on"
  assert ended - sent[0] < 5
  loop.run(config, str(run))
  assert rows_of(run) == rows_of(folder)
