"""Prepared by processes that are killed, or that meet: the same bits."""

import contextlib
import os
import pathlib
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from data import sources
from data.store import prepare

_ROOT = pathlib.Path(__file__).parents[3]
# Up to twenty-one commands, each of which imports and starts processes.
pytestmark = pytest.mark.timeout(900)
SCRIPT = """
import pathlib, pickle, sys
from absl import logging
from data.store import prepare
logging.set_verbosity(logging.INFO)
prepare._RECORDS = 100
source, encoding = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
workers = int(sys.argv[3])
pairs = prepare.prepare_set(
  source, encoding, pathlib.Path(sys.argv[2]), workers=workers
)
print(pairs.fingerprint)
"""


def bits(store: pathlib.Path) -> dict[str, bytes]:
  """Those of a store's one folder, beside which only its lock is left."""
  folder, lock = sorted(store.iterdir())
  assert lock.name == f"{folder.name}.lock"
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def task(write_jsonl, make_encoding, tmp_path) -> pathlib.Path:
  lines = [
    {"source": "apple " + "very " * (i % 40), "target": "go " * (i % 7)}
    for i in range(4_000)
  ]
  path = write_jsonl(*lines)
  source = sources.open_source(f"jsonl:{path}", fields=("source", "target"))
  pickled = tmp_path / "task.pickle"
  pickled.write_bytes(pickle.dumps((source, make_encoding())))
  return pickled


@pytest.fixture
def whole(task, tmp_path, monkeypatch) -> dict[str, bytes]:
  monkeypatch.setattr(prepare, "_RECORDS", 100)
  source, encoding = pickle.loads(task.read_bytes())
  prepare.prepare_set(source, encoding, tmp_path / "whole", workers=1)
  return bits(tmp_path / "whole")


@pytest.fixture
def start(task, one_device_env):
  """Starts a process that prepares into a folder."""
  # The file's warnings are errors of pytest's alone.
  return lambda store, workers: subprocess.Popen(
    [sys.executable, "-c", SCRIPT, str(task), str(store), str(workers)],
    cwd=_ROOT,
    env=one_device_env | {"PYTHONPATH": str(_ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _children(process: int) -> list[int]:
  path = pathlib.Path(f"/proc/{process}/task/{process}/children")
  with contextlib.suppress(OSError):
    return [int(child) for child in path.read_text().split()]
  return []


def _alive(process: int) -> bool:
  with contextlib.suppress(OSError):
    # A zombie that nobody has waited for is none.
    stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] != "Z"
  return False


def test_killed_at_random_moments_it_ends_with_the_same_bits(
  start, whole, tmp_path, count, seed
):
  store, draw = tmp_path / "store", random.Random(seed)
  kills = count(2, 20)
  for kill in range(kills):
    before = len(list(store.glob("*/*.part")))
    process = start(store, 1 + kill % 2)
    try:
      # By turns at any moment of the start, and while shards are written.
      if kill % 4 < 2:
        while len(list(store.glob("*/*.part"))) <= before:
          if process.poll() is not None:
            break
          time.sleep(0.001)
      time.sleep(draw.uniform(0.0, 0.05 if kill % 4 < 2 else 4.0))
      children = _children(process.pid)
    finally:
      process.kill()
      log, _ = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), log
    # Its own processes end with it: none writes while the next one does.
    deadline = time.monotonic() + 20
    while any(_alive(child) for child in children):
      assert time.monotonic() < deadline, children
      time.sleep(0.01)
    if [folder for folder in store.glob("*") if not folder.suffix]:
      # Too late: it had ended, and the next one begins anew.
      assert bits(store) == whole
      shutil.rmtree(store)
  process = start(store, 2)
  log, _ = process.communicate()
  assert process.returncode == 0, log
  assert bits(store) == whole


def test_a_worker_that_is_killed_is_reported(start, whole, tmp_path):
  store = tmp_path / "store"
  process = start(store, 2)
  while not list(store.glob("*/*.part")):
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.001)
  for child in _children(process.pid):
    with contextlib.suppress(ProcessLookupError):
      os.kill(child, signal.SIGKILL)
  log, _ = process.communicate()
  assert process.returncode == 1
  assert "lower data.prepare_workers; run again, and it goes on" in log
  process = start(store, 1)
  assert process.communicate() and process.returncode == 0
  assert bits(store) == whole


def test_two_that_meet_make_one_set(start, whole, tmp_path):
  store = tmp_path / "store"
  both = [start(store, 1), start(store, 1)]
  logs = [process.communicate()[0] for process in both]
  assert [process.returncode for process in both] == [0, 0], logs
  prints = {log.splitlines()[-1] for log in logs}
  assert len(prints) == 1
  assert sum(": 4000 records, by 1 processes" in log for log in logs) == 1
  assert bits(store) == whole
