"""Several processes of main.py on this machine: a pod in rehearsal.

  python -m launch.local --processes=2 -- --config=configs/dates.py:smoke \
    --workdir=runs/two

What follows `--` are flags of main.py. The processes find each other through
a free local port. Output is prefixed by the process's number. Where one fails
the others are ended and its status is returned; SIGTERM and SIGINT are passed
on, so that a run saves and exits; a second signal ends it at once.

The processes compute on CPU unless JAX_PLATFORMS says otherwise: one process
alone drives all accelerators of a machine. --dry_run prints the command lines.
"""

from launch import early

if __name__ == "__main__":
  early.watch()

import contextlib
import ctypes
import functools
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from absl import flags

from launch import program

MAIN = Path(__file__).parents[1] / "main.py"
GRACE_SECONDS = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Of this command alone: a sweep, which imports it, has others.
OWN = flags.FlagValues()
flags.DEFINE_integer(
  "processes", 2, "How many to start.", lower_bound=1, flag_values=OWN
)
flags.DEFINE_bool(
  "dry_run", False, "Only print the command lines.", flag_values=OWN
)


def commands(processes: int, port: int, arguments: Sequence[str]) -> list:
  """The command line of each process."""
  return [
    [
      sys.executable,
      str(MAIN),
      *arguments,
      f"--coordinator=127.0.0.1:{port}",
      f"--process_id={index}",
      f"--num_processes={processes}",
    ]
    for index in range(processes)
  ]


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def die_with(parent: int) -> None:
  """In a child, on Linux: ends it when `parent` is killed outright."""
  if sys.platform == "linux":
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # It died before the call.
      os.kill(os.getpid(), signal.SIGKILL)


def _begin_child(parent: int) -> None:
  # Those of the parent are blocked, which exec would keep.
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
  die_with(parent)


def start(command: Sequence[str], **options) -> subprocess.Popen:
  """Starts a command that ends with this process, in a group of its own."""
  return subprocess.Popen(
    command,
    stdin=subprocess.DEVNULL,
    start_new_session=True,
    preexec_fn=functools.partial(_begin_child, os.getpid()),
    **options,
  )


def start_among(
  processes: list[subprocess.Popen],
  received: Sequence[int],
  command: Sequence[str],
  **options,
) -> bool:
  """Adds the process of a command; False: a signal had come, none is started.

  A signal that comes meanwhile waits until the process is there, so that each
  of them gets it, and gets it once.
  """
  signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
  try:
    if received:
      return False
    processes.append(start(command, **options))
    return True
  finally:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def send(processes: Sequence[subprocess.Popen], number: int) -> None:
  """Sends a signal to the groups of those that still run."""
  for process in processes:
    if process.poll() is None:
      with contextlib.suppress(ProcessLookupError):  # It has just ended.
        os.killpg(process.pid, number)


def pass_signals_on(processes: Sequence[subprocess.Popen]) -> list[int]:
  """From here on a signal goes to the processes; a second one kills them.

  Returns:
    The signals received, filled as they come.
  """
  received: list[int] = []

  def handle(number: int, _) -> None:
    send(processes, signal.SIGKILL if received else number)
    received.append(number)

  for number in _SIGNALS:
    signal.signal(number, handle)
  return received


def wait(processes: Sequence[subprocess.Popen], received: Sequence[int]) -> int:
  """The exit status of all: the first failure's, else 0."""
  failed, deadline = 0, float("inf")
  while None in (statuses := [process.poll() for process in processes]):
    time.sleep(0.05)
    failures = [status for status in statuses if status]
    if failures and not failed:
      failed = failures[0]
      if len(processes) > 1 and not received:
        which = statuses.index(failed)
        how = f"signal {-failed}" if failed < 0 else f"exit status {failed}"
        print(f"process {which} ended by {how}; ending the others", flush=True)
      if not received:  # After a signal the others may still be saving.
        deadline = time.monotonic() + GRACE_SECONDS
        send(processes, signal.SIGTERM)
    if time.monotonic() > deadline:
      send(processes, signal.SIGKILL)
  failed = failed or next((p.returncode for p in processes if p.returncode), 0)
  return failed if failed >= 0 else 128 - failed


def copy_output(stream: IO[str], prefix: str) -> None:
  with stream:
    for line in stream:
      sys.stdout.write(f"{prefix}{line}")
      sys.stdout.flush()


def run(processes: int, arguments: Sequence[str]) -> int:
  """Runs the processes to their end; returns the exit status."""
  port = free_port()
  environment = {
    "JAX_PLATFORMS": "cpu",
    **os.environ,
    # The default listens on every interface of the machine.
    "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
    "PYTHONUNBUFFERED": "1",
  }
  started: list[subprocess.Popen] = []
  received = pass_signals_on(started)
  readers = []
  try:
    for command in commands(processes, port, arguments):
      if not start_among(
        started,
        received,
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
      ):
        break
    for index, process in enumerate(started):
      reader = threading.Thread(
        target=copy_output, args=(process.stdout, f"[{index}] ")
      )
      reader.start()
      readers.append(reader)
    status = wait(started, received)
    return status if started else 128 + received[0]
  finally:
    send(started, signal.SIGKILL)
    for reader in readers:
      reader.join()


def launch(command: program.Program) -> int:
  """Runs the command as its flags say; returns the exit status."""
  processes = program.values(OWN)("processes")
  if not OWN["dry_run"].value:
    return run(processes, command.flags)
  for words in commands(processes, free_port(), command.flags):
    print(shlex.join(words))
  return 0


if __name__ == "__main__":
  program.launch(__doc__, OWN, launch)
