"""One run at a time has a folder; another one is told who has it."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from configs import dates
from train import loop
from train.errors import Refusal
from train.modes import inspect
from train.workdir import recorded_config, run_lock

ROOT = Path(__file__).parents[3]


HOLDER = """
  import pathlib, sys, time
  from train.workdir import run_lock
  with run_lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def holder(tmp_path, one_device_env):
  """Another process that holds `tmp_path / "run"`."""
  process = subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / "run")],
    cwd=ROOT,
    env=one_device_env | {"PYTHONPATH": str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout and process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.communicate()


def test_a_second_run_is_told_who_holds_the_folder(holder, tmp_path):
  run = tmp_path / "run"
  named = f"--workdir={run} is held by process {holder.pid} of "
  # Whatever it asks for, and before it reads or writes anything.
  for mode in (loop, inspect):
    with pytest.raises(Refusal) as caught:
      mode.run(dates.get_config(), str(run))
    assert str(caught.value).startswith(f"{named}{socket.gethostname()}")
  assert [path.name for path in run.iterdir()] == ["lock"]
  # What a killed process leaves holds nobody up.
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  assert (run / "lock").exists()
  with run_lock.held(run):
    assert (run / "lock").read_text().startswith(f"process {os.getpid()} of ")
  assert not list(run.iterdir())


def test_a_folder_where_a_run_has_begun_can_be_looked_at(holder, tmp_path):
  run = tmp_path / "run"
  recorded_config.record(dates.get_config(), run, {}, 0)
  with run_lock.held(run, until_begun=True):
    pass
  with (
    pytest.raises(Refusal, match="is held by"),
    run_lock.held(run),
  ):
    pass


def test_a_folder_is_let_go_after_an_error(tmp_path):
  for _ in range(2):
    with pytest.raises(KeyError), run_lock.held(tmp_path / "new/run"):
      raise KeyError
  # Nothing was written there.
  assert not (tmp_path / "new/run").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said(
  number, tmp_path, monkeypatch, caplog
):
  def refuse(file, how):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, "flock", refuse)
  with (
    caplog.at_level("WARNING", logger="absl"),
    run_lock.held(tmp_path / "run"),
  ):
    assert not list((tmp_path / "run").iterdir())
  [message] = caplog.messages
  assert re.search(
    r"no locks .*nothing keeps a second run out of --work", message
  )
  assert "\n" not in message
