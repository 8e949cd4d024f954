"""Sweeps several at a time: here, on Slurm, and on Kubernetes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import slurm, sweep
from tests.launch.waiting import until

ROOT = Path(__file__).parents[2]
CONFIG = """
from ml_collections import ConfigDict

def get_config(arg=""):
  return ConfigDict({"optim": {"lr": 0.1}, "train": {"steps": 1}})

def get_hyper():
  return [{"optim.lr": lr} for lr in %s]
"""
# Stands in for main.py: notes when it ran, and leaves what a run leaves. 0.5
# waits until it may go on, and 0.7 fails until it is mended.
STAND_IN = """
import json, os, sys, time
flags = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:])
folder, lr = flags["workdir"], float(flags["config.optim.lr"])
os.makedirs(folder, exist_ok=True)
began = time.time()
open(f"{folder}/began", "w").close()
while lr == 0.5 and not os.path.exists(f"{folder}/../go"):
  time.sleep(0.02)
if lr == 0.7 and not os.path.exists(f"{folder}/../mend"):
  print("error: lr is too large", file=sys.stderr)
  sys.exit(1)
config = {"data.eval": "dates@valid", "train.best_metric": "",
          "train.best_mode": "min"}
with open(f"{folder}/config.json", "w") as file:
  json.dump(config, file)
with open(f"{folder}/metrics.jsonl", "w") as file:
  print(json.dumps({"step": 1, "eval/valid/loss": lr}), file=file)
with open(f"{folder}/ran", "a") as file:
  print(began, time.time(), file=file)
"""
LAUNCHER = """
import sys
from pathlib import Path
from launch import local, program, sweep
local.MAIN = Path(sys.argv.pop())
try:
  sweep.app.run(sweep.main, flags_parser=program.parse)
except program.Refusal as refusal:
  program.refuse(refusal)
"""


@pytest.fixture
def start(tmp_path, background):
  """`start(rates, *flags)`: a sweep over the stand-in, in another process."""
  (tmp_path / "main.py").write_text(STAND_IN)

  def begin(rates, *words: str) -> subprocess.Popen:
    (tmp_path / "experiment.py").write_text(CONFIG % (rates,))
    return background(
      [
        *(sys.executable, "-c", LAUNCHER, f"--config={tmp_path}/experiment.py"),
        *(f"--workdir={tmp_path}/sweep", "--poll_seconds=0.2", *words),
        str(tmp_path / "main.py"),
      ],
      stderr=subprocess.STDOUT,
    )

  yield begin
  (tmp_path / "sweep").mkdir(exist_ok=True)
  (tmp_path / "sweep/go").touch()


@pytest.fixture
def cluster(tmp_path, tools, monkeypatch):
  folder = tmp_path / "cluster"
  folder.mkdir()
  monkeypatch.setenv("STAND_IN_KUBECTL", str(folder))
  monkeypatch.setenv("STAND_IN_MAIN", str(tmp_path / "main.py"))
  tools("kubectl_stand_in.py", "kubectl")
  return folder


def table(folder: Path) -> list[dict]:
  text = (folder / "sweep/results.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def spans(folder: Path) -> list[tuple[float, float]]:
  """When each run began and ended."""
  found = []
  for path in (folder / "sweep").glob("*/ran"):
    for line in path.read_text().splitlines():
      began, ended = map(float, line.split())
      found.append((began, ended))
  return sorted(found)


def called(folder: Path, name: str) -> int:
  lines = (folder / "calls").read_text().splitlines()
  return sum(json.loads(line)[0] == name for line in lines)


SLURM = ("--launcher=slurm", "--launcher_flags=--account=lab")


def test_a_killed_sweep_on_slurm_finds_its_jobs(start, queue, tmp_path):
  rates = (0.5, 0.1, 0.2, 0.3)
  words = (*SLURM, "--max_parallel=2")
  process = start(rates, *words)
  until(lambda: (tmp_path / "sweep/optim.lr=0.3").exists())
  process.kill()
  output, _ = process.communicate()
  # The one that waits is still there.
  (tmp_path / "sweep/go").touch()
  process = start(rates, *words)
  output, _ = process.communicate(timeout=100)
  assert process.returncode == 0, output
  assert [row["status"] for row in table(tmp_path)] == ["finished"] * 4
  assert [row["eval/valid/loss"] for row in table(tmp_path)] == [*rates]
  assert len(list(queue.glob("*.json"))) == len(spans(tmp_path)) == 4
  assert "optim.lr=0.5: job 1, found again" in output
  for began, _ in spans(tmp_path):
    assert sum(b <= began < e for b, e in spans(tmp_path)) <= 2
  # Again, nothing is submitted.
  process = start(rates, *words)
  assert "optim.lr=0.5: finished before" in process.communicate(timeout=60)[0]
  assert len(list(queue.glob("*.json"))) == 4


def test_a_sweep_that_is_killed_as_it_submits_submits_once(
  start, queue, tmp_path
):
  (queue / "hang").touch()
  process = start((0.1,), *SLURM)
  until(lambda: (queue / "1.json").exists())
  process.kill()
  process.communicate()
  (queue / "hang").unlink()
  process = start((0.1,), *SLURM)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 0, output
  assert called(queue, "sbatch") == 1 and len(spans(tmp_path)) == 1


@pytest.mark.parametrize("where", ["here", "slurm"])
def test_a_member_that_fails_stops_no_other(start, queue, tmp_path, where):
  words = ("--max_parallel=2", *(SLURM if where == "slurm" else ()))
  process = start((0.7, 0.1, 0.2), *words)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 1
  assert "\noptim.lr=0.7: exit 1: error: lr is too large\n\n" in output
  rows = table(tmp_path)
  assert [row["status"] for row in rows] == ["exit 1", "finished", "finished"]
  assert rows[0]["error"] == "error: lr is too large"
  (tmp_path / "sweep/mend").touch()
  process = start((0.7, 0.1, 0.2), *words)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 0, output
  assert len(spans(tmp_path)) == 3
  assert [row["status"] for row in table(tmp_path)] == ["finished"] * 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_jobs_running_and_says_so(
  start, queue, tmp_path, number
):
  process = start((0.5, 0.1), *SLURM)
  until(lambda: (tmp_path / "sweep/optim.lr=0.5/began").exists())
  process.send_signal(number)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 128 + number
  assert output.endswith(
    "interrupted; 1 jobs go on by themselves, and the same command finds them; "
    "to cancel them: scancel 1\n"
  )
  (tmp_path / "sweep/go").touch()
  until(lambda: (tmp_path / "sweep/optim.lr=0.5/ran").exists())
  assert called(queue, "sbatch") == 1


def test_members_run_side_by_side_here_and_end_with_the_sweep(start, tmp_path):
  process = start((0.5, 0.1, 0.2), "--max_parallel=2")
  until(lambda: (tmp_path / "sweep/results.jsonl").exists())
  until(lambda: len(table(tmp_path)) == 2)
  process.terminate()
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGTERM
  assert "interrupted in optim.lr=0.5; the same command goes on" in output
  (tmp_path / "sweep/go").touch()
  time.sleep(0.3)
  assert not (tmp_path / "sweep/optim.lr=0.5/ran").exists()
  output, _ = start((0.5, 0.1, 0.2), "--max_parallel=2").communicate(timeout=60)
  assert [row["status"] for row in table(tmp_path)] == ["finished"] * 3


def test_a_signal_to_the_only_member_is_told(start, tmp_path):
  process = start((0.5,))
  until(lambda: (tmp_path / "sweep/optim.lr=0.5/began").exists())
  time.sleep(0.2)
  process.terminate()
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGTERM
  assert "interrupted in optim.lr=0.5; the same command goes on" in output


def test_results_that_are_not_seen_here_are_told(start, queue, tmp_path):
  """As of a bucket that is mounted on the nodes alone."""
  text = (tmp_path / "main.py").read_text()
  unseen = text.replace('/metrics.jsonl"', '/metrics.elsewhere"')
  assert unseen != text
  (tmp_path / "main.py").write_text(unseen)
  process = start((0.1,), *SLURM)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 1
  assert "optim.lr=0.1: exit 0: its results cannot be read here: " in output


def test_a_killed_sweep_on_kubernetes_finds_its_jobsets(
  start, cluster, tmp_path
):
  own = f"--image=i --topology=v5e:1x1 --bucket=bb --mount={tmp_path}"
  words = ("--launcher=gke", f"--launcher_flags={own}", "--max_parallel=2")
  process = start((0.5, 0.7, 0.1), *words)
  until(lambda: (tmp_path / "sweep/optim.lr=0.1/ran").exists())
  process.kill()
  process.communicate()
  (tmp_path / "sweep/go").touch()
  process = start((0.5, 0.7, 0.1), *words)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 1, output
  statuses = [row["status"] for row in table(tmp_path)]
  assert statuses == ["finished", "exit 1", "finished"]
  assert "optim.lr=0.7: exit 1: error: lr is too large" in output
  assert len(list(cluster.glob("*.yaml"))) in (3, 4)
  assert len(spans(tmp_path)) == 2


def test_dry_run_prints_a_script_that_submits_them(start, queue, tmp_path):
  process = start((0.1, 0.2), *SLURM, "--dry_run")
  script, _ = process.communicate(timeout=60)
  assert process.returncode == 0 and not (queue / "calls").exists()
  assert not (tmp_path / "sweep").exists()
  done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  until(lambda: len(spans(tmp_path)) == 2)
  assert called(queue, "sbatch") == 2


@pytest.mark.parametrize(
  ("name", "words", "said"),
  [
    ("local", "--nodes=2", "'--nodes=2' are a cluster's: leave them out"),
    ("slurm", "", "--account is missing"),
    ("slurm", "--acount=a", "Unknown command line flag 'acount'"),
    ("slurm", "--account='a", "No closing quotation"),
    ("slurm", "--account=a b", "b does not belong there"),
    ("slurm", "--account=a --name=x", "--name does not belong there"),
    ("gke", "--image=i --topology=v5e:9x9 --bucket=bb", "no such slice"),
    (
      "gke",
      "--image=i --topology=v5e:1x1 --bucket=bb --mount=/none/such",
      "mount the shared folder here, too, at /none/such",
    ),
  ],
)
def test_wrong_flags_of_a_launcher_are_refused(name, words, said, monkeypatch):
  monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
  with pytest.raises(sweep.Refusal) as refusal:
    sweep.read_launcher(name, words, Path("/none/such/sweep"))
  assert said in str(refusal.value)


def test_flags_of_a_launcher_are_read_as_a_shell_has_them():
  words = "--account=lab --setup='module load cuda' --nodes=2"
  launcher = sweep.read_launcher("slurm", words, Path("/shared/sweep"))
  assert isinstance(launcher, slurm.Slurm)
  assert launcher.value("setup") == "module load cuda"
  assert launcher.value("nodes") == 2


TINY = """
from configs import dates

def get_config(arg=""):
  config = dates.get_config("smoke")
  config.train.steps = 3
  config.train.eval_every_steps = 3
  config.train.checkpoint_every_steps = 1
  config.eval.text_examples = -1
  return config

def get_hyper():
  return [{"seed": seed} for seed in range(%d)]
"""


@pytest.mark.sample(1, group="whole runs")
def test_a_killed_sweep_of_real_jobs_ends_complete(
  tmp_path, queue, count, one_device_env
):
  members = count(2, 4)
  config, folder = tmp_path / "tiny.py", tmp_path / "sweep"
  config.write_text(TINY % members)
  environment = one_device_env | {
    "PATH": os.environ["PATH"],
    "STAND_IN_SLURM": str(queue),
  }
  command = [sys.executable, "-m", "launch.sweep", *SLURM, "--max_parallel=2"]
  command += [f"--config={config}", f"--workdir={folder}", "--poll_seconds=1"]
  options = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE}
  process = subprocess.Popen(command, text=True, **options)
  began = lambda: (folder / "seed=1/config.json").exists()
  until(lambda: began() or process.poll() is not None, 300)
  assert process.poll() is None, process.communicate()[0]
  process.kill()
  process.communicate()
  done = subprocess.run(command, text=True, timeout=500, **options)
  assert done.returncode == 0, done.stdout
  assert len(list(queue.glob("*.json"))) == members
  rows = table(tmp_path)
  assert [row["status"] for row in rows] == ["finished"] * members
  assert len({row["eval/valid/loss"] for row in rows}) == members
