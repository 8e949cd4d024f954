"""The loop: order, resuming, stopping, and what it refuses."""

import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest

from train import compiled_steps, loop, start
from train.checkpoint import Checkpoints
from train.errors import Refusal
from train.progress import step_reader
from train.setup import trained
from train.workdir.metrics_file import read_rows


def rows_of(folder):
  """metrics.jsonl without what depends on the clock."""
  return [
    {k: v for k, v in row.items() if not k.startswith("time/")}
    for row in read_rows(folder / "metrics.jsonl")
  ]


def test_a_run_leaves_what_it_promises(finished):
  config, folder, result = finished
  rows = rows_of(folder)
  assert [row["step"] for row in rows] == [1, 2, 3, 4]
  assert [("eval/valid/loss" in row) for row in rows] == [False, True] * 2
  assert all("train/loss" in row for row in rows)
  assert rows[-1]["train/pairs"] == 4 * config.train.batch_size
  assert result == {k: v for k, v in rows[-1].items() if k.startswith("eval/")}
  assert {path.name for path in folder.iterdir()} == {
    "checkpoints",
    "config.json",
    "goodput.json",
    "metrics.jsonl",
    "model.json",
    "samples",
    "signatures.json",
    "store",
    "tensorboard",
    "tokenizers",
  }
  samples = (folder / "samples/valid-00000004.jsonl").read_text().splitlines()
  assert len(samples) == 21
  assert json.loads(samples[9])["source"] == "blue blue 9"
  signatures = json.loads((folder / "signatures.json").read_text())
  assert signatures["rouge2"].startswith("stemmer:porter|sentences:lines|")


def test_each_evaluated_step_is_saved_with_its_metrics(finished):
  _config, folder, _result = finished
  with Checkpoints(
    folder / "checkpoints", best_metric="eval/valid/loss", writable=False
  ) as checkpoints:
    assert checkpoints.steps() == [2, 4]
    losses = {
      row["step"]: row["eval/valid/loss"]
      for row in rows_of(folder)
      if "eval/valid/loss" in row
    }
    assert checkpoints.best_step() == min(losses, key=losses.get)


@pytest.mark.usefixtures("one_device")
def test_a_finished_run_prints_its_result_and_does_nothing(
  finished, tmp_path, capsys
):
  config, folder, result = finished
  copy = shutil.copytree(folder, tmp_path / "run")
  before = {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}
  assert loop.run(config, str(copy)) == result
  out = capsys.readouterr().out
  assert "finished at step 4" in out
  assert f"eval/valid/loss {result['eval/valid/loss']:.4f}" in out
  metrics, kept = copy / "metrics.jsonl", copy / "checkpoints/4"
  assert metrics.read_bytes() == (folder / "metrics.jsonl").read_bytes()
  after = {p: p.stat().st_mtime_ns for p in before if kept in p.parents}
  assert after.items() <= before.items()


@pytest.mark.usefixtures("one_device")
def test_a_run_with_fewer_steps_than_it_has_done_tells(
  finished, tmp_path, capsys
):
  config, folder, _ = finished
  copy = shutil.copytree(folder, tmp_path / "run")
  rows = [
    {k: v for k, v in row.items() if row["step"] < 4 or "eval" not in k}
    for row in rows_of(copy)
  ]
  (copy / "metrics.jsonl").write_text(
    "".join(json.dumps(r) + "\n" for r in rows)
  )
  config = config.copy_and_resolve_references()
  config.train.steps = 3
  assert loop.run(config, str(copy)) == {}
  out = capsys.readouterr().out
  assert "finished at step 4" in out and "past train.steps=3" in out
  assert "not evaluated there" in out
  # A value that was not finite is null in the file.
  rows[-1]["eval/valid/loss"] = None
  (copy / "metrics.jsonl").write_text(
    "".join(json.dumps(r) + "\n" for r in rows)
  )
  loop.run(config, str(copy))
  assert "eval/valid/loss nan" in capsys.readouterr().out


@pytest.fixture
def events(monkeypatch):
  """Launches of a step and readings of its metrics, as they happen."""
  seen = []
  launch = compiled_steps.CompiledSteps.__call__
  read = step_reader.StepReader.read

  def launching(self, state, batch):
    seen.append("launch")
    return launch(self, state, batch)

  def reading(self):
    if self.pending is not None:
      seen.append(f"read {self.pending[0]}")
    return read(self)

  monkeypatch.setattr(compiled_steps.CompiledSteps, "__call__", launching)
  monkeypatch.setattr(step_reader.StepReader, "read", reading)
  return seen


@pytest.mark.sample(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("one_device")
def test_a_signal_saves_and_the_same_command_goes_on(
  number, finished, tmp_path, monkeypatch, events, compilations
):
  config, folder, _ = finished
  run = tmp_path / "run"
  batches = loop.train_batches

  def terminated(*args, **kwargs):
    for index, batch in enumerate(batches(*args, **kwargs)):
      if index == 2:
        os.kill(os.getpid(), number)
      yield batch

  handler = signal.getsignal(number)
  with monkeypatch.context() as patch:
    patch.setattr(loop, "train_batches", terminated)
    with pytest.raises(SystemExit) as stopped:
      loop.run(config, str(run))
  assert stopped.value.code == 128 + number
  assert signal.getsignal(number) is handler
  with Checkpoints(run / "checkpoints", writable=False) as checkpoints:
    assert checkpoints.latest_step() == 3
    assert checkpoints.metrics(2) and not checkpoints.metrics(3)
  assert [row["step"] for row in rows_of(run)] == [1, 2, 3]
  # A step's metrics are read when the next one runs, or a save needs them.
  assert events == ["launch", "launch", "read 1", "read 2", "launch", "read 3"]
  # The control of test_bad_input_is_refused_before_anything_compiles.
  assert compilations
  loop.run(config, str(run))
  assert rows_of(run) == rows_of(folder)
  assert params(config, run) == params(config, folder)


def params(config, run):
  """The bytes of the last checkpoint's parameters, by path."""
  tree = trained.load(config, str(run), step=4).params
  return {
    jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


@pytest.mark.usefixtures("one_device")
def test_another_config_stops_and_allowed_changes_go_on(
  finished, tmp_path, caplog
):
  config, folder, _ = finished
  run = shutil.copytree(folder, tmp_path / "run")
  other = config.copy_and_resolve_references()
  other.optim.lr = 0.5
  with pytest.raises(Refusal, match=r"optim\.lr: 0\.0001 -> 0\.5"):
    loop.run(other, str(run))
  longer = config.copy_and_resolve_references()
  longer.train.steps = 5
  longer.mesh.fsdp = 1
  this = start.build_run(longer, run)
  assert this.changes == {"train.steps": [4, 5]}
  with caplog.at_level("INFO", logger="absl"):
    start.announce(this, 4)
  assert "from step 4 to 5" in caplog.text
  [warning] = [r for r in caplog.records if r.levelname == "WARNING"]
  assert warning.getMessage().startswith("train.steps: 4 -> 5 moves the end")


@pytest.mark.usefixtures("one_device")
def test_a_run_that_has_no_step_left_says_so(finished, tmp_path, caplog):
  config, folder, _ = finished
  run = shutil.copytree(folder, tmp_path / "run")
  shorter = config.copy_and_resolve_references()
  shorter.train.steps = 3
  with caplog.at_level("INFO", logger="absl"):
    start.announce(start.build_run(shorter, run), 4)
  assert "step 4 is done already, of train.steps=3" in caplog.text
  assert "from step" not in caplog.text
  # It changes nothing: what ran there had four steps to do.
  assert not (run / "config_history.jsonl").exists()


@pytest.mark.usefixtures("one_device")
def test_other_data_under_the_same_name_is_refused(finished, tmp_path):
  config, folder, _ = finished
  run = shutil.copytree(folder, tmp_path / "run")
  path = folder.parent / "pairs.jsonl"
  lines = path.read_text()
  path.write_text(lines.replace("red blue 8", "red blue 9"))
  try:
    with pytest.raises(Refusal, match=r"data\.train = .*pairs\.jsonl"):
      loop.run(config, str(run))
  finally:
    path.write_text(lines)


@pytest.mark.usefixtures("one_device")
def test_a_loss_that_is_not_finite_names_step_records_and_checkpoint(
  finished, tmp_path
):
  config, _folder, _ = finished
  config = config.copy_and_resolve_references()
  config.optim.lr = 1e30
  config.train.log_every_steps = 3
  config.optim.warmup_steps = 0
  config.optim.clip_norm = 0.0
  config.train.checkpoint_every_steps = 1
  config.eval.text_examples = -1
  with pytest.raises(step_reader.NonFiniteLoss) as caught:
    loop.run(config, str(tmp_path / "run"))
  message = str(caught.value)
  assert "step 2: loss" in message
  assert re.search(r"the pairs \[\d+, .* is .*pairs\.jsonl: line \d+", message)
  assert "last good checkpoint is step 1" in message
  with Checkpoints(tmp_path / "run/checkpoints", writable=False) as saved:
    assert saved.steps() == [1]
