"""A run that is killed and started again ends as one that never stopped."""

import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from train.workdir.metrics_file import read_rows

_ROOT = pathlib.Path(__file__).parents[2]
_SAVE_EVERY = 3
# Up to fifteen processes, each of which imports and compiles.
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def steps(count) -> int:
  return count(9, 30)


Start = Callable[[pathlib.Path], subprocess.Popen]


@pytest.fixture(scope="module")
def start(steps, one_device_env) -> Start:
  """Starts the run in a folder by a command that is the same each time."""
  overrides = {
    "model.dropout": 0.1,
    "train.steps": steps,
    "train.log_every_steps": 1,
    "train.eval_every_steps": 2 * _SAVE_EVERY,
    "train.checkpoint_every_steps": _SAVE_EVERY,
    "optim.ema_decay": 0.9,
    "optim.groups": (
      "('*/cross_attention*: lr_scale=10', 'encoder/*: frozen_steps=4')"
    ),
    # Compiling generation takes longer than the rest of the run.
    "eval.text_examples": -1,
  }
  return lambda workdir: subprocess.Popen(
    [
      sys.executable,
      "main.py",
      "--config=configs/dates.py:smoke",
      f"--workdir={workdir}",
      *(f"--config.{name}={value}" for name, value in overrides.items()),
    ],
    cwd=_ROOT,
    # Less to compile than for the tests' eight devices.
    env=one_device_env,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _finish(start: Start, workdir: pathlib.Path) -> str:
  with start(workdir) as process:
    try:
      log, _ = process.communicate()
    finally:
      process.kill()
  assert process.returncode == 0, log
  return log


@pytest.fixture(scope="module")
def whole(tmp_path_factory, start) -> pathlib.Path:
  """The folder of a run that never stopped; do not write there."""
  workdir = tmp_path_factory.mktemp("whole") / "run"
  _finish(start, workdir)
  return workdir


def _rows(workdir: pathlib.Path) -> list[dict]:
  return [
    {name: x for name, x in row.items() if not name.startswith("time/")}
    for row in read_rows(workdir / "metrics.jsonl")
  ]


def _assert_ended_alike(workdir: pathlib.Path, whole: pathlib.Path, steps: int):
  rows = _rows(workdir)
  assert [row["step"] for row in rows] == list(range(1, steps + 1))
  assert rows == _rows(whole)
  for item in ("params", "opt_state", "ema"):
    with ocp.StandardCheckpointer() as checkpointer:
      got, want = (
        checkpointer.restore(folder / "checkpoints" / str(steps) / item)
        for folder in (workdir, whole)
      )
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def _inode(path: pathlib.Path) -> int | None:
  return path.stat().st_ino if path.exists() else None


def _saving(workdir: pathlib.Path) -> bool:
  return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def _kill(
  start: Start,
  workdir: pathlib.Path,
  after: int,
  during_save: bool,
  delay: float,
) -> None:
  """Starts the run and kills it when it has written the row of `after`."""
  metrics = workdir / "metrics.jsonl"
  # Cutting the file on resume makes it another one.
  old = _inode(metrics)

  def reached() -> bool:
    if _inode(metrics) in (old, None):
      return False
    return any(row["step"] >= after for row in read_rows(metrics))

  with start(workdir) as process:
    try:
      for condition in [reached] + [lambda: _saving(workdir)] * during_save:
        while not condition():
          assert process.poll() is None, process.stdout.read()
          time.sleep(0.001)
      if not during_save:
        time.sleep(delay)
    finally:
      process.kill()
    log = process.stdout.read()
  assert process.returncode == -signal.SIGKILL, log


def _newest(workdir: pathlib.Path) -> int:
  folder = workdir / "checkpoints"
  names = (path.name for path in folder.glob("*")) if folder.exists() else ()
  return max((int(name) for name in names if name.isdecimal()), default=0)


@pytest.mark.sample(1, group="whole runs")
def test_killed_runs_end_as_if_never_stopped(
  start, whole, tmp_path, count, seed, steps
):
  """Kills at random steps, every other one while a save is under way."""
  rng = random.Random(seed)
  workdir = tmp_path / "run"
  for i in range(count(2, 10)):
    # A save is still to come, and the run has a way to go.
    last = min(_newest(workdir) + _SAVE_EVERY, steps - 2)
    after = rng.randint(min(_newest(workdir) + 1, last), last)
    _kill(start, workdir, after, i % 2 == 1, 0.3 * rng.random())
  log = _finish(start, workdir)
  assert f"from step {steps}" not in log
  assert "is bad" not in log
  _assert_ended_alike(workdir, whole, steps)


def _truncate(path: pathlib.Path) -> None:
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])


def _flip(path: pathlib.Path) -> None:
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)


@pytest.mark.sample(1, group="whole runs")
def test_a_bad_file_in_the_newest_checkpoint_costs_its_steps_alone(
  start, whole, tmp_path, count, seed, steps
):
  rng = random.Random(seed)
  damages = [_truncate, pathlib.Path.unlink, _flip]
  for i, damage in enumerate(rng.sample(damages, count(1, 3))):
    workdir = shutil.copytree(whole, tmp_path / str(i))
    newest = workdir / "checkpoints" / str(steps)
    files = sorted(path for path in newest.glob("*/**/*") if path.is_file())
    path = rng.choice(files)
    damage(path)
    log = _finish(start, workdir)
    [warning] = [line for line in log.splitlines() if "is bad" in line]
    assert path.relative_to(newest).as_posix() in warning
    assert (workdir / "checkpoints/set_aside" / f"{steps}-0").is_dir()
    assert f"from step {steps - _SAVE_EVERY} to {steps}" in log
    _assert_ended_alike(workdir, whole, steps)
