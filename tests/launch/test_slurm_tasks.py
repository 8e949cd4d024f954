"""Slurm: the tasks of a job, which are the processes of one run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.waiting import until

ROOT = Path(__file__).parents[2]


@pytest.mark.sample(1, group="whole runs")
def test_the_tasks_of_a_job_are_one_run(queue, tmp_path, one_device_env):
  """Which join by the environment that srun gives them."""
  # JAX's port follows from the job's number: another one than other tests'.
  (queue / "number").write_text("x" * (os.getpid() % 4000))
  environment = one_device_env | {
    "PATH": os.environ["PATH"],
    "STAND_IN_SLURM": str(queue),
  }
  workdir = tmp_path / "run"
  done = subprocess.run(
    [
      *(sys.executable, "-m", "launch.slurm", "--account=lab", "--nodes=2"),
      *("--", "--config=configs/dates.py:smoke", f"--workdir={workdir}"),
      *("--config.train.steps=3", "--config.train.eval_every_steps=0"),
    ],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  log = workdir / f"slurm-{done.stdout.strip()}.out"
  status = workdir / "exit_status.json"
  ended = lambda: (
    status.exists() and json.loads(status.read_text())["status"] is not None
  )
  until(ended, 400)
  assert json.loads(status.read_text())["status"] == 0, log.read_text()[-3000:]
  assert "process 0 of 2" in log.read_text()
  assert "process 1 of 2" in log.read_text()
