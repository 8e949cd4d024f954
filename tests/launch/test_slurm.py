"""Slurm: the script that is rendered, and jobs of it that really run."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from absl import flags
from hypothesis import strategies as st

from launch import exit_status, local, slurm
from launch.program import Program, Refusal
from tests.launch.waiting import until

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
# Stands in for main.py: notes its arguments, and ends by the next status. By
# "wait" it waits for SIGTERM and saves; by "stuck" it has no step to save.
STAND_IN = """
import json, os, signal, sys, time
flags = dict(a.lstrip("-").partition("=")[::2] for a in sys.argv[1:])
folder = flags["workdir"]
with open(f"{folder}/ran", "a") as file:
  file.write(json.dumps([os.getcwd(), *sys.argv[1:]]) + "\\n")
def stop(*_):
  if end == "wait":
    open(f"{folder}/saved", "a").close()
    os.makedirs(f"{folder}/checkpoints/{os.getpid()}")
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
with open(f"{folder}/statuses", "r+") as file:
  ends = file.read().split()
  file.seek(0)
  file.truncate()
  file.write(" ".join(ends[1:]))
end = ends[0] if ends else "0"
if end in ("wait", "stuck"):
  os.makedirs(f"{folder}/checkpoints/1.incomplete-{os.getpid()}")
  open(f"{folder}/waits", "w").close()
  time.sleep(100)
if end == "kill":
  os.kill(os.getpid(), signal.SIGKILL)
if end != "0":
  print("error: it ended by", end, file=sys.stderr)
sys.exit(int(end))
"""


def own(*words: str) -> flags.FlagValues:
  found = flags.FlagValues()
  slurm.define(found)
  found(["slurm", *words])
  return found


def render(*words: str, workdir: str = "/shared/runs/b2b", more=()) -> str:
  command = Program(("--config=c.py", f"--workdir={workdir}", *more))
  launcher = slurm.Slurm(own(*words))
  return launcher.render(command, launcher.name(command))


def shown(script: str) -> str:
  """Without what differs from machine to machine."""
  text = script.replace(str(local.MAIN), "/code/main.py")
  return text.replace(sys.executable, "/venv/bin/python").replace(
    f"cd -- {shlex.quote(os.getcwd())} ", "cd -- /code "
  )


GOLDENS = {
  "slurm_least.sh": render("--account=lab"),
  "slurm_most.sh": render(
    *("--account=lab", "--partition=gpu", "--qos=high", "--time=24:00:00"),
    *("--nodes=4", "--gpus_per_node=8", "--cpus_per_task=64", "--name=big"),
    *("--grace_seconds=300", "--max_restarts=3", "--sbatch=--mem=0"),
    *("--sbatch=--constraint=h100", "--setup=module load cuda\nulimit -c 0"),
    workdir="/shared/my runs/b2b",
    more=("--config.a=it's", "--config.b=$x @name@ `y`", "--config.c=1\n2"),
  ),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_the_script_is_the_golden_one(name):
  assert shown(GOLDENS[name]) == (GOLDEN / name).read_text()


@pytest.mark.parametrize("name", GOLDENS)
def test_the_script_is_sound(name, tmp_path):
  path = tmp_path / "job.sh"
  path.write_text(GOLDENS[name])
  subprocess.run(["bash", "-n", path], check=True)
  checker = Path(sys.executable).parent / "shellcheck"
  # SC2016: flags of main.py that hold a dollar are not to be expanded.
  done = subprocess.run(
    [checker, "--exclude=SC2016", path], capture_output=True, text=True
  )
  assert not done.stdout + done.stderr


def test_the_script_knows_the_statuses_of_the_table():
  (condition,) = [
    line
    for line in GOLDENS["slurm_least.sh"].splitlines()
    if line.startswith("if ((status == 75 ")
  ]
  loop = f"for status in {{0..255}}; do {condition} echo $status; fi; done"
  printed = subprocess.run(
    ["bash", "-c", loop], capture_output=True, text=True, check=True
  ).stdout
  again = [s for s in range(256) if exit_status.runs_again(s)]
  assert [int(line) for line in printed.split()] == again


@pytest.fixture
def job(tmp_path, queue, monkeypatch):
  """`job(ends, *flags)` submits a job; gives its launcher, command, number."""
  (tmp_path / "main.py").write_text(STAND_IN)
  monkeypatch.setattr(local, "MAIN", tmp_path / "main.py")
  workdir = tmp_path / "a run"
  workdir.mkdir()

  def submit(ends, *words, more=()):
    (workdir / "statuses").write_text(ends)
    launcher = slurm.Slurm(own("--account=lab", *words))
    command = Program((f"--workdir={workdir}", *more))
    return launcher, command, launcher.submit(command, "a-run"), workdir

  return submit


def result(launcher, command, number):
  return until(lambda: launcher.ended({number: command}))[number]


def runs(workdir: Path) -> int:
  return len((workdir / "ran").read_text().splitlines())


def test_a_job_that_can_be_mended_comes_back_until_it_is_done(job):
  launcher, command, number, workdir = job("75 kill 0")
  assert launcher.find("a-run", command) == number
  assert result(launcher, command, number) == exit_status.Ended(0)
  assert runs(workdir) == 3
  assert json.loads((workdir / "exit_status.json").read_text()) == {
    "name": "a-run",
    "job": number,
    "status": 0,
    "restarts": 2,
    "again": False,
  }
  # It is known by its name when it has left the queue, too.
  assert launcher.find("a-run", command) == number
  assert launcher.find("another", command) is None


def test_an_error_that_would_come_again_is_the_last(job):
  launcher, command, number, workdir = job("1 0")
  ended = result(launcher, command, number)
  assert ended == exit_status.Ended(1, "error: it ended by 1")
  assert runs(workdir) == 1


def test_failures_are_counted(job):
  launcher, command, number, workdir = job("75 75 75 0", "--max_restarts=2")
  assert result(launcher, command, number).status == 75
  assert runs(workdir) == 3


def test_a_signal_before_the_time_is_over_costs_no_restart(job, queue):
  launcher, command, number, workdir = job("wait", "--max_restarts=0")
  until((workdir / "waits").exists)
  (task,) = queue.glob(f"{number}.task.*")
  os.kill(int(task.suffix[1:]), 15)
  assert result(launcher, command, number).status == 0
  assert runs(workdir) == 2 and (workdir / "saved").exists()


def test_a_stop_before_anything_is_saved_costs_a_restart(job, queue):
  """A job of too little time for a step would come back for ever."""
  launcher, command, number, workdir = job(
    "wait stuck stuck 0", "--max_restarts=1"
  )
  for _ in range(3):
    until((workdir / "waits").exists)
    (workdir / "waits").unlink()
    (task,) = queue.glob(f"{number}.task.*")
    os.kill(int(task.suffix[1:]), 15)
  assert result(launcher, command, number).status == 143
  assert runs(workdir) == 3
  log = (workdir / f"slurm-{number}.out").read_text()
  assert "main.py ended by 143: it has had its 1 restarts\n" in log


def test_a_job_that_is_cancelled_saves_and_stays_away(job):
  launcher, command, number, workdir = job("wait")
  until((workdir / "waits").exists)
  subprocess.run(launcher.cancel_command([number]).split(), check=True)
  assert result(launcher, command, number).status == 143
  assert runs(workdir) == 1 and (workdir / "saved").exists()


def test_a_job_that_nobody_wrote_of_has_no_status(job, queue):
  launcher, command, number, workdir = job("0")
  result(launcher, command, number)
  (workdir / "exit_status.json").unlink()
  assert launcher.ended({number: command})[number].status is None


TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"))


@hypothesis.given(st.lists(TEXT, max_size=20))
@hypothesis.settings(
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
  max_examples=4,
)
@hypothesis.example(["a b", "'", '"', "$HOME", "`x`", "1\n2\n", "\\", "@name@"])
def test_flags_arrive_as_they_were_given(job, values):
  given = [f"--config.x={value}" for value in values]
  launcher, command, number, workdir = job("0", more=given)
  assert result(launcher, command, number).status == 0
  folder, first, *arrived = json.loads(
    (workdir / "ran").read_text().splitlines()[-1]
  )
  assert arrived == given and first == f"--workdir={workdir}"
  assert folder == os.getcwd()


@pytest.mark.parametrize(
  ("words", "workdir", "said"),
  [
    ((), "/a", "--account is missing"),
    (("--account=a b",), "/a", "--account='a b': sbatch takes no space"),
    (("--account=a", "--sbatch=--mem 0"), "/a", "--sbatch='--mem 0': write"),
    (("--account=a", "--name=B_2"), "/a", "--name=B_2: write at most"),
    (("--account=a",), "/50%", "--workdir='/50%': Slurm writes its log"),
  ],
)
def test_what_slurm_would_not_take_is_refused(
  words, workdir, said, monkeypatch
):
  monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
  with pytest.raises(Refusal) as refusal:
    render(*words, workdir=workdir)
  assert said in str(refusal.value)


def launch(*words: str, **options):
  return subprocess.run(
    [sys.executable, "-m", "launch.slurm", *words],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
    **options,
  )


def test_the_command_prints_a_script_that_can_be_used(queue, tmp_path):
  words = ["--account=lab", "--", "--config=c.py", f"--workdir={tmp_path}/new"]
  dry = launch("--dry_run", *words)
  assert shown(dry.stdout) == shown(
    render("--account=lab", workdir=f"{tmp_path}/new").replace(
      os.getcwd(), str(ROOT)
    )
  )
  assert dry.stderr == f"before: mkdir -p {tmp_path}/new\n"
  assert not (tmp_path / "new").exists() and not list(queue.iterdir())
  done = launch(*words)
  assert done.stdout == "1\n" and not done.stderr
  assert (queue / "1.sh").read_text() == dry.stdout


def test_what_cannot_be_submitted_is_told_in_one_line(queue, tmp_path):
  words = ["--account=lab", "--", f"--workdir={tmp_path}/run"]
  (queue / "refuse").touch()
  done = launch(*words)
  assert done.returncode == 1 and not done.stdout
  assert done.stderr == (
    "error: sbatch failed: sbatch: error: Batch job submission failed: "
    "Invalid account\n"
  )
  (tmp_path / "bin/sbatch").unlink()
  done = launch(*words)
  assert done.returncode == 1 and done.stderr == (
    "error: sbatch is not installed here: run this on a login node of the "
    "cluster, or print what it would get by --dry_run\n"
  )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_as_it_is_submitted_is_told(queue, tmp_path, number):
  (queue / "hang").touch()
  process = subprocess.Popen(
    [
      *(sys.executable, "-m", "launch.slurm", "--account=lab", "--"),
      f"--workdir={tmp_path}/run",
    ],
    cwd=ROOT,
    stderr=subprocess.PIPE,
    text=True,
  )
  until(lambda: list(queue.glob("*.json")))
  process.send_signal(number)
  _, errors = process.communicate(timeout=60)
  (queue / "hang").unlink()
  assert process.returncode == 128 + number
  assert errors == (
    f"stopped by {number.name}: ask squeue whether the job was submitted\n"
  )
