"""Stands in for sbatch, squeue, scancel, scontrol and srun, which it is told.

What is submitted really runs, in the background, a job at a time or many; the
queue is the folder STAND_IN_SLURM, with a file for each job.
"""

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

QUEUE = Path(os.environ["STAND_IN_SLURM"])


def note(*words: str) -> None:
  """Keeps what was called."""
  with open(QUEUE / "calls", "a") as file:
    file.write(json.dumps(words) + "\n")


def read(job: str) -> dict:
  return json.loads((QUEUE / f"{job}.json").read_text())


def update(job: str, **values) -> dict:
  with open(QUEUE / "lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    path = QUEUE / f"{job}.json"
    values = (json.loads(path.read_text()) if path.exists() else {}) | values
    partial = QUEUE / f"{job}.{os.getpid()}"
    partial.write_text(json.dumps(values))
    partial.rename(path)
  return values


def options(script: str) -> dict[str, str]:
  found = {}
  for line in script.splitlines():
    if line.startswith("#SBATCH "):
      for word in shlex.split(line.removeprefix("#SBATCH ")):
        name, _, value = word.removeprefix("--").partition("=")
        found[name] = value
  return found


def sbatch(arguments: list[str]) -> int:
  if (QUEUE / "refuse").exists():
    print("sbatch: error: Batch job submission failed: Invalid account",
          file=sys.stderr)  # fmt: skip
    return 1
  script = sys.stdin.read()
  with open(QUEUE / "number", "a+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write("x")
    file.flush()
    job = str(file.tell())
  given = options(script)
  assert not [f for f in ("job-name", "account", "output") if f not in given]
  log = given["output"].replace("%j", job)
  (QUEUE / f"{job}.sh").write_text(script)
  subprocess.Popen(
    [sys.executable, __file__, "runner", job],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  # From here on it is submitted.
  update(job, name=given["job-name"], state="PENDING", log=log, again=False)
  while (QUEUE / "hang").exists():
    time.sleep(0.02)
  print(f"{job};cluster" if "--parsable" in arguments else "Submitted")
  return 0


def runner(arguments: list[str]) -> int:
  (job,), restarts = arguments, 0
  end = time.monotonic() + 10
  while not (QUEUE / f"{job}.json").exists():
    if time.monotonic() > end:
      return 1
    time.sleep(0.02)
  while read(job)["state"] == "PENDING":
    while (QUEUE / "full").exists():
      time.sleep(0.02)
    environment = os.environ | {
      "SLURM_JOB_ID": job,
      "SLURM_RESTART_COUNT": str(restarts),
    }
    with open(read(job)["log"], "ab") as log:
      script = subprocess.Popen(
        ["bash", str(QUEUE / f"{job}.sh")],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
      )
      update(job, state="RUNNING", group=script.pid)
      script.wait()
    if read(job)["again"]:
      update(job, state="PENDING", again=False)
      restarts += 1
    else:
      update(job, state="GONE")
  return 0


def squeue(arguments: list[str]) -> int:
  given = dict(a.removeprefix("--").partition("=")[::2] for a in arguments)
  for path in sorted(QUEUE.glob("*.json")):
    job = json.loads(path.read_text())
    wanted = given.get("jobs", path.stem) == path.stem
    wanted &= given.get("name", job["name"]) == job["name"]
    if wanted and job["state"] != "GONE":
      print(
        given["format"].replace("%i", path.stem).replace("%T", job["state"])
      )
  return 0


def signal_tasks(job: str) -> None:
  """Sends SIGTERM to the tasks, as --signal does."""
  for path in QUEUE.glob(f"{job}.task.*"):
    os.kill(int(path.suffix[1:]), signal.SIGTERM)


def scancel(arguments: list[str]) -> int:
  for job in arguments:
    update(job, state="COMPLETING")
    signal_tasks(job)
    os.kill(read(job)["group"], signal.SIGTERM)  # Of the shell alone.
  return 0


def scontrol(arguments: list[str]) -> int:
  assert arguments[0] == "requeue"
  update(arguments[1], again=True)
  return 0


def srun(arguments: list[str]) -> int:
  words = [*arguments]
  given = {}
  while re.match(r"--[a-z]", words[0]):
    name, _, value = words.pop(0).removeprefix("--").partition("=")
    given[name] = value
  tasks, job = int(given["ntasks"]), os.environ["SLURM_JOB_ID"]
  started = []
  for rank in range(tasks):
    environment = os.environ | {
      "SLURM_PROCID": str(rank),
      "SLURM_LOCALID": str(rank),
      "SLURM_NTASKS": str(tasks),
      "SLURM_STEP_NODELIST": "localhost",
      "SLURM_STEP_NUM_TASKS": str(tasks),
      "SLURM_STEP_NUM_NODES": given["nodes"],
    }
    started.append(subprocess.Popen(words, env=environment))
    (QUEUE / f"{job}.task.{started[-1].pid}").touch()
  statuses = [task.wait() for task in started]
  for task in started:
    (QUEUE / f"{job}.task.{task.pid}").unlink()
  return max(s if s >= 0 else 128 - s for s in statuses)


if __name__ == "__main__":
  called, *given = sys.argv[1:]
  note(called, *given)
  sys.exit(globals()[called](given))
