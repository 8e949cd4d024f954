"""A process of its own, for what forks and blocks signals."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Those that scripts use.
COMMANDS = (
  *("bash", "cat", "grep", "hostname", "mkdir", "mktemp", "mv", "rm", "sed"),
  *("sleep", "tar", "gzip"),
)
PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from launch import local, sweep
folder = Path(sys.argv[1])
local.MAIN = folder / "main.py"
"""
# Stands in for main.py: notes its arguments, and ends by the next status; by
# "wait" it waits for SIGTERM, and saves.
MAIN = """
import json, signal, sys, time
flags = dict(a.lstrip("-").partition("=")[::2] for a in sys.argv[1:])
folder = flags["workdir"]
with open(f"{folder}/ran", "a") as file:
  file.write(json.dumps(sys.argv[1:]) + "\\n")
def stop(*_):
  open(f"{folder}/saved", "a").close()
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
with open(f"{folder}/statuses", "r+") as file:
  ends = file.read().split()
  file.seek(0)
  file.truncate()
  file.write(" ".join(ends[1:]))
end = ends[0] if ends else "0"
if end == "wait":
  open(f"{folder}/waits", "w").close()
  time.sleep(100)
sys.exit(int(end))
"""


@pytest.fixture
def script(tmp_path):
  """`script(body)`: runs it with `folder`, whose main.py stands in for ours.

  The tests' own process may have threads of JAX, which get signals that the
  main one blocks, and must not be forked.
  """

  def run(body):
    return subprocess.run(
      [sys.executable, "-c", PRELUDE + textwrap.dedent(body), str(tmp_path)],
      cwd=ROOT,
      env=os.environ | {"PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
      timeout=100,
    )

  return run


@pytest.fixture
def background():
  """`background(command, **options)`: a process that ends with the test."""
  started = []

  def begin(command, **options):
    process = subprocess.Popen(
      command,
      cwd=ROOT,
      env=os.environ | {"PYTHONPATH": str(ROOT)},
      stdout=subprocess.PIPE,
      text=True,
      **options,
    )
    started.append(process)
    return process

  yield begin
  for process in started:
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
      if stream is not None:
        stream.close()


@pytest.fixture
def tools(tmp_path, monkeypatch):
  """`tools(file, *names)`: stand-ins of commands, alone on the PATH.

  What is installed on the machine is not found: no test may reach a cluster.
  """
  folder = tmp_path / "bin"
  folder.mkdir()
  for name in COMMANDS:
    (folder / name).symlink_to(shutil.which(name) or f"/bin/{name}")
  monkeypatch.setenv("PATH", str(folder))

  def put(file, *names):
    for name in names:
      script = folder / name
      words = shlex.join([sys.executable, str(HERE / file), name])
      script.write_text(f'#!/bin/bash\nexec {words} "$@"\n')
      script.chmod(0o755)
    return folder

  return put


@pytest.fixture
def queue(tmp_path, tools, monkeypatch):
  """The folder of a Slurm that is not there; its jobs really run."""
  folder = tmp_path / "queue"
  folder.mkdir()
  monkeypatch.setenv("STAND_IN_SLURM", str(folder))
  tools("slurm_stand_in.py", "sbatch", "squeue", "scancel", "scontrol", "srun")
  yield folder
  for path in folder.glob("*.json"):
    job = json.loads(path.read_text())
    if job["state"] != "GONE" and "group" in job:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(job["group"], signal.SIGKILL)


@pytest.fixture
def cloud(tmp_path, tools, monkeypatch):
  """The folder of a gcloud that is not there; the first TPUs stay active."""
  folder = tmp_path / "cloud"
  folder.mkdir()
  (folder / "plan").write_text(json.dumps([["ACTIVE"]]))
  (tmp_path / "main.py").write_text(MAIN)
  (tmp_path / "run").mkdir()
  (tmp_path / "run/statuses").write_text("")
  monkeypatch.setenv("STAND_IN_GCLOUD", str(folder))
  monkeypatch.setenv("STAND_IN_MAIN", str(tmp_path / "main.py"))
  tools("gcloud_stand_in.py", "gcloud")
  return folder
