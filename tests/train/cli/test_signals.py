"""A signal at any moment: one sentence, its exit status, and no traceback."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.checkpoint import Checkpoints

ROOT = Path(__file__).parents[3]
SMOKE = "--config=configs/dates.py:smoke"


@pytest.fixture
def start(tmp_path, one_device_env):
  """Starts main.py in a group of its own, with `tmp_path / "run"`."""
  started = []

  def begin(*arguments, options=()) -> subprocess.Popen:
    process = subprocess.Popen(
      [sys.executable, *options, "main.py", f"--workdir={tmp_path}/run"]
      + list(arguments),
      cwd=ROOT,
      # What is compiled already would take no time to interrupt.
      env=one_device_env | {"JAX_COMPILATION_CACHE_DIR": f"{tmp_path}/jax"},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
    started.append(process)
    return process

  yield begin
  for process in started:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def read_until(process, text):
  for line in process.stderr:
    if text in line:
      return
  raise AssertionError(f"it ended without {text!r}")


def wait_for(process, condition):
  while not condition():
    assert process.poll() is None, process.communicate()[1]
    time.sleep(0.001)


def stopped(process, number, *, group=False):
  """Sends a signal; the lines that follow, when all processes have ended."""
  (os.killpg if group else os.kill)(process.pid, number)
  text = process.communicate(timeout=300)[1]
  assert process.returncode == 128 + number, text
  assert "Traceback" not in text and "Exception ignored" not in text, text
  while True:
    try:
      os.killpg(process.pid, 0)
    except ProcessLookupError:
      return text.splitlines()
    time.sleep(0.01)


@pytest.mark.parametrize(
  "command, module",
  [
    ("main.py", "ctypes"),
    ("main.py", "multiprocessing"),
    ("-m launch.sweep", "absl"),
    ("-m launch.local", "ctypes"),
  ],
)
def test_in_its_first_imports(command, module):
  # The signal comes when this module is asked for, before it is there.
  sent = (
    "import os, signal, sys\n"
    "class Sender:\n"
    "  def find_spec(self, name, *_):\n"
    f"    if name == {module!r}:\n"
    "      os.kill(os.getpid(), signal.SIGINT)\n"
    "sys.meta_path.insert(0, Sender())\n"
  )
  run = (
    f"runpy.run_module({command[3:]!r}, run_name='__main__', alter_sys=True)"
    if command.startswith("-m ")
    else f"runpy.run_path({command!r}, run_name='__main__')"
  )
  done = subprocess.run(
    [sys.executable, "-c", f"import runpy\n{sent}{run}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.stderr == "stopped by SIGINT: nothing was begun\n"
  assert done.returncode == 128 + signal.SIGINT


def test_while_it_imports(start):
  process = start(SMOKE, options=("-X", "importtime"))
  read_until(process, " numpy")
  lines = stopped(process, signal.SIGINT)
  said = [line for line in lines if not line.startswith("import time:")]
  assert said == ["stopped by SIGINT: nothing was begun"]


def test_while_it_makes_tokenizers(start, tmp_path):
  process = start("--config=configs/dates.py", "--mode=inspect")
  wait_for(process, (tmp_path / "run/lock").exists)
  [line] = stopped(process, signal.SIGTERM)
  assert line.startswith("stopped by SIGTERM: what was prepared is kept")


def test_while_processes_prepare(start, tmp_path):
  """As a terminal does: each of them gets the signal."""
  process = start(
    "--config=configs/dates.py",
    "--mode=prepare",
    "--config.data.prepare_workers=2",
  )
  made = lambda: list(tmp_path.glob("run/store/*.partial/*.part"))
  wait_for(process, made)
  lines = stopped(process, signal.SIGINT, group=True)
  assert lines[-1].startswith("stopped by SIGINT: what was prepared is kept")
  assert made()


@pytest.mark.sample(1, group="signals while a model computes")
def test_while_it_compiles(start, tmp_path):
  # Grain's processes too, which begin meanwhile.
  process = start(SMOKE, "--config.data.workers=1")
  read_until(process, "the step compiles")
  [line] = stopped(process, signal.SIGINT, group=True)
  assert line.startswith("stopped by SIGINT: no step was done")
  assert not list(tmp_path.glob("run/checkpoints/[0-9]*"))


@pytest.mark.sample(1, group="signals while a model computes")
def test_while_it_trains_and_predicts(start, tmp_path):
  run, output = tmp_path / "run", tmp_path / "out.jsonl"
  process = start(SMOKE, "--config.train.log_every_steps=3")
  read_until(process, "step 3 of 6")
  # The evaluation that follows is left to the next start.
  first, *_, last = stopped(process, signal.SIGINT)
  assert first == (
    "SIGINT: this step is finished and saved first; once more ends it"
  )
  assert last.endswith("stopped: saved step 3; run again to go on")
  with Checkpoints(run / "interrupted", writable=False) as checkpoints:
    assert checkpoints.steps() == [3]
  process = start(SMOKE, "--config.train.log_every_steps=3")
  process.communicate(timeout=300)
  assert process.returncode == 0
  with Checkpoints(
    run / "checkpoints", best_metric="eval/valid/loss", writable=False
  ) as checkpoints:
    assert checkpoints.steps() == [3, 6] and checkpoints.metrics(3)

  process = start(
    SMOKE, "--mode=predict", "--input=dates@train", f"--output={output}"
  )
  wait_for(process, output.with_name("out.jsonl.partial").exists)
  *_, line = stopped(process, signal.SIGTERM)
  assert line.startswith("stopped by SIGTERM: what was predicted is kept")


@pytest.mark.sample(1, group="signals while a model computes")
def test_a_second_signal_ends_at_once(start, tmp_path):
  process = start(
    SMOKE, "--config.train.log_every_steps=3", "--config.data.workers=1"
  )
  read_until(process, "step 3 of 6")
  os.kill(process.pid, signal.SIGTERM)
  read_until(process, "once more ends it")
  [line] = stopped(process, signal.SIGINT)
  assert line == "stopped at once by a second signal, SIGINT"
