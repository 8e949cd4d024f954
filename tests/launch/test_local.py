"""Several processes on this machine: output, failures and signals."""

import itertools
import json
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Stands in for main.py: says who it is, then waits to be ended.
STAND_IN = """
import os, signal, sys, time
folder, ending = sys.argv[1:3]
flags = dict(a.lstrip("-").split("=") for a in sys.argv[3:])
rank = flags["process_id"]
def save(*_):
  open(f"{folder}/saved{rank}", "w").close()
  sys.exit(0)
if ending == "save":
  signal.signal(signal.SIGTERM, save)
if ending == "ignore" or (ending == "stubborn" and rank == "0"):
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("I am", rank, "of", flags["num_processes"], flags["coordinator"])
with open(f"{folder}/{rank}.partial", "w") as file:
  file.write(str(os.getpid()))
os.rename(f"{folder}/{rank}.partial", f"{folder}/pid{rank}")
if ending == "end":
  sys.exit(0)
if ending in ("fail", "stubborn") and rank == "1":
  while not os.path.exists(f"{folder}/pid0"):
    time.sleep(0.01)
  sys.exit(3)
time.sleep(300)
"""


@pytest.fixture
def start(tmp_path):
  """Starts launch.local over the stand-in, in a process of its own."""
  (tmp_path / "main.py").write_text(STAND_IN)
  launcher = textwrap.dedent(f"""
    import sys
    from pathlib import Path
    from launch import local
    local.MAIN = Path({str(tmp_path / "main.py")!r})
    local.GRACE_SECONDS = 0.5
    sys.exit(local.run(2, sys.argv[1:]))
  """)
  started = []

  def begin(ending: str) -> subprocess.Popen:
    process = subprocess.Popen(
      [sys.executable, "-c", launcher, str(tmp_path), ending],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      text=True,
    )
    started.append(process)
    return process

  yield begin
  for process in started:
    process.kill()
    process.communicate()


def until(condition, seconds: float = 30.0):
  """Waits for a condition, and fails after `seconds`."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, "waited in vain"
    time.sleep(0.02)


def ready(folder: Path) -> bool:
  return (folder / "pid0").exists() and (folder / "pid1").exists()


def alive(folder: Path) -> list[int]:
  """Ranks whose process still runs (a zombie has ended)."""
  ranks = []
  for rank in (0, 1):
    try:
      stat = Path(f"/proc/{(folder / f'pid{rank}').read_text()}/stat")
      if stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        ranks.append(rank)
    except FileNotFoundError:
      pass
  return ranks


def test_output_carries_the_rank(start):
  output, _ = start("end").communicate(timeout=30)
  lines = sorted(output.splitlines())
  ports = re.findall(r"127\.0\.0\.1:(\d+)", output)
  assert len(set(ports)) == 1 and int(ports[0]) > 0
  assert [line.split(" 127")[0] for line in lines] == [
    "[0] I am 0 of 2",
    "[1] I am 1 of 2",
  ]


@pytest.mark.parametrize("ending", ["fail", "stubborn"])
def test_a_failure_ends_the_others_and_is_returned(start, tmp_path, ending):
  process = start(ending)
  assert process.wait(timeout=30) == 3
  assert alive(tmp_path) == []


def test_sigterm_is_passed_on(start, tmp_path):
  process = start("save")
  until(lambda: ready(tmp_path))
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 0
  assert (tmp_path / "saved0").exists() and (tmp_path / "saved1").exists()


def test_a_second_signal_kills(start, tmp_path):
  process = start("ignore")
  until(lambda: ready(tmp_path))
  process.send_signal(signal.SIGTERM)
  time.sleep(0.3)
  assert process.poll() is None and alive(tmp_path) == [0, 1]
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 128 + signal.SIGKILL


def test_a_killed_launcher_leaves_nothing_behind(start, tmp_path):
  process = start("sleep")
  until(lambda: ready(tmp_path))
  assert alive(tmp_path) == [0, 1]
  process.kill()
  until(lambda: alive(tmp_path) == [])


def losses(workdir: Path) -> list[float]:
  rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return [
    row[name]
    for row in rows
    for name in ("train/loss", "eval/valid/loss")
    if name in row
  ]


def test_two_processes_give_the_losses_of_one(tmp_path, one_device_env):
  flags = [
    "--config=configs/dates.py:smoke",
    "--config.data.train=dates@train[:300]",
    "--config.model.dropout=0.1",
    "--config.train.steps=3",
    "--config.train.log_every_steps=1",
    "--config.train.eval_every_steps=0",
    "--config.eval.text_examples=-1",
  ]
  commands = {
    "one": ["main.py", *flags],
    "two": ["-m", "launch.local", "--processes=2", "--", *flags],
  }
  for name, arguments in commands.items():
    result = subprocess.run(
      [sys.executable, *arguments, f"--workdir={tmp_path / name}"],
      cwd=ROOT,
      env=one_device_env,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=500,
    )
    assert result.returncode == 0, result.stdout[-3000:]
  assert "[1] " in result.stdout and "process 1 of 2" in result.stdout
  one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
  assert len(one) == len(two) == 4
  assert max(abs(a / b - 1) for a, b in zip(one, two, strict=True)) < 1e-5
  # The control: what a step changes is far above that.
  assert min(abs(a / b - 1) for a, b in itertools.pairwise(one)) > 1e-3
