"""Runs of several processes on this machine, which tests disturb."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from train.workdir.metrics_file import read_rows

ROOT = Path(__file__).parents[3]
# Longer than any process may outlive one that is lost.
MINUTE = 60.0
# For a whole run, on a machine that has much else to do.
ENOUGH = 800.0


@dataclasses.dataclass
class Started:
  """Processes of one run; the output of each is in a file."""

  processes: list[subprocess.Popen]
  outputs: list[Path]

  def text(self, process: int = 0) -> str:
    return self.outputs[process].read_text(errors="replace")

  def running(self) -> bool:
    return any(process.poll() is None for process in self.processes)

  def wait(self, seconds: float) -> list[int]:
    """Exit statuses; fails, and ends them, if one runs on."""
    deadline = time.monotonic() + seconds
    try:
      for process in self.processes:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      raise AssertionError(
        f"process {self.processes.index(process)} hangs: {self.tail()}"
      ) from None
    finally:
      self.kill()
    return [process.returncode for process in self.processes]

  def kill(self) -> None:
    for process in self.processes:
      if process.poll() is None:
        process.kill()
      process.wait()

  def send(self, number: signal.Signals, which: Sequence[int]) -> None:
    for process in which:
      if self.processes[process].poll() is None:
        self.processes[process].send_signal(number)

  def tail(self) -> str:
    return "".join(
      f"\n[{process}] ...{self.text(process)[-1500:]}"
      for process in range(len(self.outputs))
    )


def start(
  count: int, folder: Path, flags: Sequence[str], env: Mapping[str, str]
) -> Started:
  """Starts a run as `count` processes, with output in `folder`."""
  folder.mkdir(parents=True, exist_ok=True)
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  processes, outputs = [], []
  for process in range(count):
    output = folder / f"output{process}.txt"
    joining = [
      f"--coordinator={address}",
      f"--process_id={process}",
      f"--num_processes={count}",
    ]
    with open(output, "wb") as file:
      processes.append(
        subprocess.Popen(
          [sys.executable, "main.py", *flags, *(joining if count > 1 else [])],
          cwd=ROOT,
          env=os.environ | env | {"JAX_COORDINATOR_BIND_ADDRESS": address},
          stdin=subprocess.DEVNULL,
          stdout=file,
          stderr=subprocess.STDOUT,
        )
      )
    outputs.append(output)
  return Started(processes, outputs)


def finish(
  count: int, folder: Path, flags: Sequence[str], env: Mapping[str, str]
) -> str:
  """Runs to the end, which is to be a good one; the first process's output."""
  started = start(count, folder, flags, env)
  statuses = started.wait(ENOUGH)
  assert statuses == [0] * count, started.tail()
  return started.text()


def rows(workdir: Path) -> list[dict]:
  """metrics.jsonl without what depends on the clock."""
  return [
    {name: x for name, x in row.items() if not name.startswith("time/")}
    for row in read_rows(workdir / "metrics.jsonl")
  ]
