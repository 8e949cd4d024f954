"""Sweeps: which members, in which folder, once each, and the table."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import IO

import pytest

from launch import sweep
from tests.launch.waiting import until

ROOT = Path(__file__).parents[2]

CONFIG = """
from ml_collections import ConfigDict

def get_config(arg=""):
  return ConfigDict({"optim": {"lr": 0.1}, "train": {"steps": 1}})

def get_hyper():
  return %s
"""
# Stands in for main.py: notes that it ran, and leaves what a run leaves.
STAND_IN = """
import json, os, sys, time
flags = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:])
folder, lr = flags["workdir"], float(flags["config.optim.lr"])
os.makedirs(folder, exist_ok=True)
with open(f"{folder}/ran", "a") as file:
  file.write("x")
if lr == 0.5 and not os.path.exists(f"{folder}/../go"):
  time.sleep(300)
if lr == 0.7 and not os.path.exists(f"{folder}/../mend"):
  sys.exit(5)
config = {"data.eval": "held=dates@valid,other=dates@test",
          "train.best_metric": "", "train.best_mode": "min"}
with open(f"{folder}/config.json", "w") as file:
  json.dump(config, file)
with open(f"{folder}/metrics.jsonl", "w") as file:
  for step, loss in (1, lr), (2, lr / 2), (3, lr):
    row = {"step": step, "train/loss": 1.0, "eval/held/loss": loss}
    print(json.dumps(row | {"time/step_seconds": 1.0}), file=file)
  print(json.dumps({"step": 4, "train/loss": 1.0}), file=file)
"""


def write_config(folder: Path, hyper: str) -> str:
  path = folder / "experiment.py"
  path.write_text(CONFIG % hyper)
  return str(path)


@pytest.fixture
def start(tmp_path, background):
  """Starts launch.sweep over the stand-in, in a process of its own."""
  (tmp_path / "main.py").write_text(STAND_IN)
  launcher = textwrap.dedent(f"""
    import sys
    from pathlib import Path
    from launch import local, sweep
    local.MAIN = Path({str(tmp_path / "main.py")!r})
    members = sweep.members(sys.argv[1])
    sys.exit(sweep.run(members, Path({str(tmp_path / "sweep")!r})))
  """)

  def begin(config: str) -> subprocess.Popen:
    return background([sys.executable, "-c", launcher, config])

  return begin


def table(folder: Path) -> list[dict]:
  text = (folder / "sweep/results.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def runs(folder: Path) -> dict[str, int]:
  """How often each member was started."""
  found = (folder / "sweep").glob("*/ran")
  return {path.parent.name: len(path.read_text()) for path in found}


def test_the_table_holds_each_member_at_its_best_step(start, tmp_path):
  config = write_config(tmp_path, '[{"optim.lr": 0.1}, {"optim.lr": 0.2}]')
  output, _ = start(config).communicate(timeout=30)
  rows = table(tmp_path)
  assert [row["member"] for row in rows] == ["optim.lr=0.1", "optim.lr=0.2"]
  assert [row["eval/held/loss"] for row in rows] == [0.05, 0.1]
  assert all(row["step"] == 2 for row in rows)
  assert not any(name.startswith("time/") for row in rows for name in row)
  assert "optim.lr=0.2  finished  2     0.1000" in output


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_sweep_goes_on_where_it_was(start, tmp_path, number):
  hyper = str([{"optim.lr": lr} for lr in (0.1, 0.5, 0.2)])
  config = write_config(tmp_path, hyper)
  process = start(config)
  until((tmp_path / "sweep/optim.lr=0.5/ran").exists)
  process.send_signal(number)
  assert process.wait(timeout=30) in (-number, 128 + number)
  assert [row["member"] for row in table(tmp_path)] == ["optim.lr=0.1"]
  (tmp_path / "sweep/go").touch()
  assert start(config).wait(timeout=30) == 0
  assert [row["status"] for row in table(tmp_path)] == ["finished"] * 3
  expected = {"optim.lr=0.1": 1, "optim.lr=0.5": 2, "optim.lr=0.2": 1}
  assert runs(tmp_path) == expected
  assert start(config).wait(timeout=30) == 0
  assert runs(tmp_path) == expected


def test_a_signal_while_a_member_starts_reaches_it(tmp_path, script):
  (tmp_path / "main.py").write_text("import time; time.sleep(100)")
  write_config(tmp_path, '[{"optim.lr": 0.1}]')
  done = script("""
    start = local.start

    def signalled(command, **options):
      process = start(command, **options)
      os.kill(os.getpid(), signal.SIGTERM)
      return process

    local.start = signalled
    members = sweep.members(str(folder / "experiment.py"))
    sys.exit(sweep.run(members, folder / "sweep"))
  """)
  # Within the time that the script has: the member would sleep longer.
  assert done.returncode == 128 + signal.SIGTERM, done.stderr
  assert "interrupted in optim.lr=0.1" in done.stdout


def test_a_signal_between_members_starts_no_other(tmp_path, script):
  (tmp_path / "main.py").write_text(STAND_IN)
  write_config(tmp_path, '[{"optim.lr": 0.1}, {"optim.lr": 0.2}]')
  done = script("""
    outcome = sweep.outcome

    def signalled(run):
      os.kill(os.getpid(), signal.SIGINT)
      return outcome(run)

    sweep.outcome = signalled
    members = sweep.members(str(folder / "experiment.py"))
    sys.exit(sweep.run(members, folder / "sweep"))
  """)
  assert done.returncode == 128 + signal.SIGINT, done.stderr
  assert "interrupted before optim.lr=0.2" in done.stdout
  assert [row["member"] for row in table(tmp_path)] == ["optim.lr=0.1"]
  assert runs(tmp_path) == {"optim.lr=0.1": 1}


def test_a_second_sweep_is_told_who_runs_there(start, tmp_path):
  config = write_config(tmp_path, '[{"optim.lr": 0.5}]')
  process = start(config)
  until((tmp_path / "sweep/optim.lr=0.5/ran").exists)
  members = sweep.members(config)
  with pytest.raises(
    sweep.Refusal, match=f"the sweep of process {process.pid}"
  ):
    sweep.run(members, tmp_path / "sweep")
  process.kill()
  process.wait()
  (tmp_path / "sweep/go").touch()
  assert start(config).wait(timeout=30) == 0
  assert [row["status"] for row in table(tmp_path)] == ["finished"]


def test_a_changed_config_is_run_again(start, tmp_path):
  config = write_config(tmp_path, '[{"optim.lr": 0.1}]')
  assert start(config).wait(timeout=30) == 0
  text = Path(config).read_text()
  Path(config).write_text(text.replace('"steps": 1', '"steps": 2'))
  assert start(config).wait(timeout=30) == 0
  assert runs(tmp_path) == {"optim.lr=0.1": 2}


def test_a_changed_config_that_is_refused_costs_no_row(start, tmp_path):
  """As main.py refuses another config in the folder of a finished run."""
  config = write_config(tmp_path, '[{"optim.lr": 0.1}]')
  assert start(config).wait(timeout=30) == 0
  before = table(tmp_path)
  (tmp_path / "main.py").write_text("import sys; sys.exit(1)")
  text = Path(config).read_text()
  Path(config).write_text(text.replace('"steps": 1', '"steps": 2'))
  process = start(config)
  output, _ = process.communicate(timeout=30)
  assert process.returncode == 1 and "choose another --workdir" in output
  assert table(tmp_path) == before


def test_a_failed_member_is_in_the_table_and_tried_again(start, tmp_path):
  config = write_config(tmp_path, '[{"optim.lr": 0.7}, {"optim.lr": 0.2}]')
  assert start(config).wait(timeout=30) == 1
  assert [row["status"] for row in table(tmp_path)] == ["exit 5", "finished"]
  (tmp_path / "sweep/mend").touch()
  assert start(config).wait(timeout=30) == 0
  assert [row["status"] for row in table(tmp_path)] == ["finished"] * 2
  assert runs(tmp_path) == {"optim.lr=0.7": 2, "optim.lr=0.2": 1}


def test_dry_run_prints_commands_and_writes_nothing(tmp_path):
  output = subprocess.run(
    [
      *(sys.executable, "-m", "launch.sweep", "--dry_run"),
      *("--config=configs/dates.py:smoke", f"--workdir={tmp_path}/sweep"),
      *("--", "--config.seed=3"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
    timeout=60,
  ).stdout
  lines = output.splitlines()
  assert len(lines) == 3 and len(set(lines)) == 3
  for line in lines:
    assert "main.py --config=configs/dates.py:smoke --config.optim.lr=" in line
    assert f" --config.seed=3 --workdir={tmp_path}/sweep/optim.lr=" in line
  assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_and_the_sweep_goes_on_after_it(tmp_path, script):
  (tmp_path / "main.py").write_text(STAND_IN)
  write_config(tmp_path, '[{"optim.lr": 0.1}]')
  folder = tmp_path / "sweep"
  folder.mkdir()
  partial = folder / "results.partial"
  partial.symlink_to("/dev/full")
  body = """
    members = sweep.members(str(folder / "experiment.py"))
    try:
      status = sweep.run(members, folder / "sweep")
    except sweep.Refusal as refusal:
      status = str(refusal)
    sys.exit(status)
  """
  full = script(body)
  assert f"--workdir={folder}: No space left on device: see" in full.stderr
  partial.unlink()
  assert script(body).returncode == 0
  assert [row["status"] for row in table(tmp_path)] == ["finished"]


# Runs that end in seconds; their seeds differ.
TINY = """
from configs import dates

def get_config(arg=""):
  config = dates.get_config("smoke")
  config.data.train = "dates@train[:300]"
  config.train.steps = 4
  config.train.eval_every_steps = 2
  config.train.checkpoint_every_steps = 2
  config.eval.text_examples = -1
  return config

def get_hyper():
  return [{"seed": seed} for seed in range(%d)]
"""


@pytest.mark.sample(1, group="whole runs")
def test_a_killed_sweep_of_real_runs_ends_complete(
  tmp_path, count, seed, one_device_env
):
  members = count(2, 4)
  config, folder = tmp_path / "tiny.py", tmp_path / "sweep"
  config.write_text(TINY % members)
  command = [sys.executable, "-m", "launch.sweep"]
  command += [f"--config={config}", f"--workdir={folder}"]
  log = open(tmp_path / "log", "w+")
  options = {"stdout": log, "stderr": log, "cwd": ROOT, "env": one_device_env}
  process = subprocess.Popen(command, **options)
  end = time.monotonic() + 400
  while not (folder / "seed=1").exists():
    assert process.poll() is None and time.monotonic() < end, read(log)
    time.sleep(0.1)
  time.sleep(random.Random(seed).uniform(0, 5))
  process.kill()
  process.wait()
  first = (folder / "seed=0/metrics.jsonl").stat().st_mtime_ns
  result = subprocess.run(command, timeout=500, **options)
  assert result.returncode == 0, read(log)
  assert (folder / "seed=0/metrics.jsonl").stat().st_mtime_ns == first
  rows = table(tmp_path)
  assert [row["member"] for row in rows] == [
    f"seed={n}" for n in range(members)
  ]
  assert all(row["status"] == "finished" for row in rows)
  assert len({row["eval/valid/loss"] for row in rows}) == members
  for row in rows:
    text = (folder / row["member"] / "metrics.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in text.splitlines()]
    assert steps == [2, 4]
  log.close()


def read(log: IO[str]) -> str:
  log.seek(0)
  return log.read()[-3000:]
