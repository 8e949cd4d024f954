"""A folder belongs to one run; what may change is recorded."""

import errno
import fcntl
import json
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


def test_the_first_run_writes_what_ran(tmp_path):
  config = dates.get_config()
  assert recorded_config.check_same(config, tmp_path) == {}
  recorded_config.record(config, tmp_path, {}, 0)
  flat = json.loads((tmp_path / "config.json").read_text())
  assert flat["data.train"] == "dates@train"
  assert flat["sharding.batch"] == ["slice", "data", "fsdp"]
  assert recorded_config.check_same(config, tmp_path) == {}
  assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_another_config_is_refused_with_the_difference(tmp_path):
  config = dates.get_config()
  recorded_config.record(config, tmp_path, {}, 0)
  config.optim.lr = 0.5
  config.train.steps = 9
  with pytest.raises(Refusal) as caught:
    recorded_config.check_same(config, tmp_path)
  assert "optim.lr: 0.002 -> 0.5" in str(caught.value)
  assert "train.steps" not in str(caught.value)


def test_allowed_changes_become_history(tmp_path):
  config = dates.get_config()
  recorded_config.record(config, tmp_path, {}, 0)
  config.train.steps = 900
  config.train.eval_every_steps = 10
  config.mesh.fsdp = 2
  config.data.store = "store"
  config.data.prepare_workers = 3
  changes = recorded_config.check_same(config, tmp_path)
  assert changes == {
    "data.store": ["", "store"],
    "data.prepare_workers": [0, 3],
    "train.steps": [1000, 900],
    "train.eval_every_steps": [500, 10],
    "mesh.fsdp": [1, 2],
  }
  recorded_config.record(config, tmp_path, changes, 350)
  assert recorded_config.check_same(config, tmp_path) == {}
  assert recorded_config.recorded(tmp_path)["train.steps"] == 900
  first = json.loads((tmp_path / "config.json").read_text())
  assert first["train.steps"] == 1000
  line = (tmp_path / "config_history.jsonl").read_text()
  assert json.loads(line) == {"step": 350, "changes": changes}


def test_reading_modes_check_the_model_alone(tmp_path):
  config = dates.get_config()
  with pytest.raises(Refusal, match="holds no run"):
    recorded_config.check_model(config, tmp_path, r"model\..*")
  recorded_config.record(config, tmp_path, {}, 0)
  config.eval.batch_size = 3
  recorded_config.check_model(config, tmp_path, r"model\..*")
  config.model.decoder = "bert:tiny"
  with pytest.raises(Refusal, match=r"model\.decoder: 'gpt2:tiny'"):
    recorded_config.check_model(config, tmp_path, r"model\..*")


HOLDER = """
  import pathlib, sys, time
  from train import workdir
  with workdir.held(pathlib.Path(sys.argv[1])):
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


def test_a_lock_that_is_let_go_meanwhile_is_taken(tmp_path, monkeypatch):
  """Its file was opened, and then removed by who had it."""
  path, flock, removed = tmp_path / "lock", fcntl.flock, []

  def remove_first(file, how):
    if not removed:
      removed.append(path.unlink())
    flock(file, how)

  monkeypatch.setattr(fcntl, "flock", remove_first)
  with run_lock.held(tmp_path):
    assert path.read_text().startswith("process ")
    with pytest.raises(Refusal), run_lock.held(tmp_path):
      pass


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


@pytest.mark.parametrize(
  ("name", "raw"),
  [
    ("config.json", b"\xff" * 4000),
    ("config.json", b'"' + b"secret " * 1000),
    ("config.json", b'["' + b"secret " * 1000 + b'"]'),
    ("config.json", b"[" * 50_000),
    ("config_history.jsonl", b"secret " * 1000),
    ("config_history.jsonl", b'{"changes": {"seed": 1}}'),
    ("config_history.jsonl", b"{}"),
  ],
)
def test_a_damaged_record_of_a_run_is_named(tmp_path, name, raw):
  config = dates.get_config()
  recorded_config.record(config, tmp_path, {}, 0)
  (tmp_path / name).write_bytes(raw)
  with pytest.raises(Refusal) as caught:
    recorded_config.check_same(config, tmp_path)
  message = str(caught.value)
  assert message.startswith(f"{tmp_path / name} is damaged (")
  assert len(message) < 500 + len(str(tmp_path))


def test_what_differs_from_a_damaged_record_has_an_end(tmp_path):
  config = dates.get_config()
  recorded_config.record(config, tmp_path, {}, 0)
  path = tmp_path / "config.json"
  flat = json.loads(path.read_text())
  flat |= {f"{'secret ' * 1000}{n}": "secret " * 1000 for n in range(999)}
  path.write_text(json.dumps(flat))
  with pytest.raises(Refusal, match="999 in all") as caught:
    recorded_config.check_same(config, tmp_path)
  assert len(str(caught.value)) < 200_000
