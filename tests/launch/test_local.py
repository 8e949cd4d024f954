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

from tests.launch.waiting import until

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
def start(tmp_path, background):
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

  def begin(ending: str) -> subprocess.Popen:
    return background([sys.executable, "-c", launcher, str(tmp_path), ending])

  return begin


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


# Notes each signal, and ends a little after the first one, or by itself.
COUNTER = """
import os, signal, sys, time
rank = dict(a.lstrip("-").split("=") for a in sys.argv[2:])["process_id"]
got = []
signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
open(f"{sys.argv[1]}/pid{rank}", "w").close()
end = time.monotonic() + 10
while time.monotonic() < end:
  time.sleep(0.05)
  if got:
    end = min(end, time.monotonic() + 0.5)
open(f"{sys.argv[1]}/got{rank}", "w").write(str(len(got)))
"""


@pytest.mark.parametrize("interrupted, got", [(0, {"0": 1}), (1, None)])
def test_a_signal_while_they_start_reaches_each_once(
  tmp_path, script, interrupted, got
):
  """It comes as soon as the process is there, before anybody knows of it."""
  (tmp_path / "main.py").write_text(COUNTER)
  done = script(f"""
    start, started = local.start, []

    def signalled(command, **options):
      process = start(command, **options)
      rank = len(started)
      started.append(process)
      while not (folder / f"pid{{rank}}").exists():
        time.sleep(0.02)
      if rank == {interrupted}:
        os.kill(os.getpid(), signal.SIGTERM)
      return process

    local.start = signalled
    local.run(2, [str(folder)])
  """)
  assert done.returncode == 0, done.stderr
  found = {
    path.name[3:]: int(path.read_text()) for path in tmp_path.glob("got*")
  }
  assert found == (got or {"0": 1, "1": 1})


def losses(workdir: Path) -> list[float]:
  rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return [
    row[name]
    for row in rows
    for name in ("train/loss", "eval/valid/loss")
    if name in row
  ]


@pytest.fixture(scope="module")
def launched(tmp_path_factory, one_device_env):
  """Runs main.py in one process or two with the flags of a tiny run."""
  folder = tmp_path_factory.mktemp("launched")
  flags = [
    "--config=configs/dates.py:smoke",
    "--config.data.train=dates@train[:300]",
    "--config.model.dropout=0.1",
    # At random, this decoder ends some of its texts early.
    "--config.model.decoder=bert:tiny",
    "--config.model.init_std=0.4",
    "--config.optim.lr=3e-4",
    "--config.generation.num_beams=3",
    "--config.train.steps=3",
    "--config.train.log_every_steps=1",
    "--config.train.eval_every_steps=0",
    # Texts are compared by prediction.
    "--config.eval.text_examples=-1",
  ]

  def run(processes: int, *more: str) -> str:
    launcher = ["-m", "launch.local", f"--processes={processes}", "--"]
    result = subprocess.run(
      [sys.executable, *(["main.py"] if processes == 1 else launcher)]
      + [*flags, *more],
      cwd=ROOT,
      env=one_device_env,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=500,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    return result.stdout

  run(1, f"--workdir={folder}/one")
  return folder, run


@pytest.mark.sample(2, group="several processes")
def test_two_processes_give_the_losses_of_one(launched):
  folder, run = launched
  # The weights of the others are so large that rounding grows in a step.
  small = "--config.model.init_std=0.05"
  run(1, f"--workdir={folder}/small", small)
  log = run(2, f"--workdir={folder}/two", small)
  assert "[1] " in log and "process 1 of 2" in log
  one, two = losses(folder / "small"), losses(folder / "two")
  assert len(one) == len(two) == 4
  assert max(abs(a / b - 1) for a, b in zip(one, two, strict=True)) < 1e-5
  # The control: what a step changes is far above that.
  assert min(abs(a / b - 1) for a, b in itertools.pairwise(one)) > 1e-3


def halves(count: int) -> list[str]:
  """The mesh of so many processes, each of which holds half the parameters."""
  return [f"--config.mesh.data={count // 2}", "--config.mesh.fsdp=2"]


@pytest.mark.sample(2, group="several processes")
@pytest.mark.parametrize("count", [2, 4])
def test_processes_export_what_one_exports(launched, count):
  """Each holds a part of the parameters; the first one writes them whole."""
  folder, run = launched
  options = [f"--workdir={folder}/one", "--mode=export"]
  if not (folder / "hub1").exists():
    run(1, *options, f"--output={folder}/hub1")
  log = run(count, *options, *halves(count), f"--output={folder}/hub{count}")
  assert log.count("exported step 3") == 1
  names = sorted(path.name for path in (folder / "hub1").glob("*.*"))
  assert "model.safetensors" in names
  for name in names:
    one, several = (
      (folder / hub / name).read_bytes() for hub in ("hub1", f"hub{count}")
    )
    assert one == several, name


@pytest.mark.sample(2, group="several processes")
def test_what_the_first_process_refuses_ends_the_others(launched):
  folder, run = launched
  (folder / "mine.jsonl").write_text("precious\n")
  options = [f"--workdir={folder}/one", "--mode=predict"]
  options += ["--input=dates@test[:5]", f"--output={folder}/mine.jsonl"]
  began = time.monotonic()
  with pytest.raises(AssertionError, match="made by something else"):
    run(2, *options)
  # Not after the minutes that a process waits for one that is gone.
  assert time.monotonic() - began < 100
  assert (folder / "mine.jsonl").read_text() == "precious\n"


@pytest.mark.sample(2, group="several processes")
@pytest.mark.parametrize("count", [2, 4])
def test_processes_predict_what_one_predicts(launched, count):
  """By beams, in rows that are refilled, with halves of the parameters."""
  folder, run = launched
  options = [f"--workdir={folder}/one", "--mode=predict"]
  options += ["--input=dates@test[:200]"]
  first, other = folder / "out1.jsonl", folder / f"out{count}.jsonl"
  if not first.exists():
    run(1, *options, f"--output={first}")
  log = run(count, *options, *halves(count), f"--output={other}")
  assert log.count("predictions of step 3") == 1
  one, several = (
    [json.loads(row) for row in path.read_text().splitlines()]
    for path in (first, other)
  )
  assert [row["id"] for row in one] == list(range(200))
  assert len({len(row["prediction"].split()) for row in one}) > 3
  for a, b in zip(one, several, strict=True):
    assert a["prediction"] == b["prediction"]
    assert a["score"] == pytest.approx(b["score"], abs=1e-4)
