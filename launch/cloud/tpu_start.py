"""One start of main.py on the hosts of TPU VMs."""

import contextlib
import subprocess
import sys
import tempfile
import threading
from concurrent import futures
from typing import IO, Protocol

from launch import cluster_command, exit_status
from launch.cloud.tpu_commands import ENDED, TpuVm
from launch.program import Program


def set_up(machines: TpuVm) -> None:
  """Copies the code to all hosts and installs what it needs."""

  def ready(node: str) -> None:
    cluster_command.call(machines.copy(node, folder))
    cluster_command.call(machines.ssh(node, machines.set_up()))

  with tempfile.TemporaryDirectory() as folder:
    cluster_command.call(machines.pack(folder))
    with futures.ThreadPoolExecutor(len(machines.nodes)) as slices:
      list(slices.map(ready, machines.nodes))


class Hosts(Protocol):
  """What main.py is started on: TpuVm."""

  @property
  def nodes(self) -> list[str]: ...
  def run(self, command: Program) -> str: ...
  def ssh(self, node: str, script: str) -> list[str]: ...


class Start:
  """One start of main.py on all hosts; what they print is passed on."""

  def __init__(self, machines: Hosts, command: Program) -> None:
    self.statuses: list[int] = []
    self.silent: set[str] = set(machines.nodes)
    self.started: list[subprocess.Popen] = []
    self.readers: list[threading.Thread] = []
    for node in machines.nodes:
      words = machines.ssh(node, machines.run(command))
      try:
        process = subprocess.Popen(
          words,
          stdin=subprocess.DEVNULL,
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
          text=True,
          errors="replace",
          start_new_session=True,
        )
      except OSError as error:
        raise cluster_command.missing(words, error) from error
      self.started.append(process)
      prefix = f"[{node}] " if len(machines.nodes) > 1 else ""
      reader = threading.Thread(
        target=self._read, args=(process.stdout, node, prefix), daemon=True
      )
      reader.start()
      self.readers.append(reader)

  def _read(self, stream: IO[str], node: str, prefix: str) -> None:
    with stream:
      for line in stream:
        words = line.split()
        if words[:1] == [ENDED] and len(words) == 3 and words[2].isdecimal():
          self.statuses.append(int(words[2]))
          self.silent.discard(node)
        sys.stdout.write(f"{prefix}{line}")
        sys.stdout.flush()

  @property
  def running(self) -> bool:
    return any(process.poll() is None for process in self.started)

  def end(self) -> None:
    """Leaves the hosts, where there still is a connection to them."""
    for process in self.started:
      with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
          process.kill()
      process.wait()
    for reader in self.readers:
      reader.join(timeout=2)

  @property
  def status(self) -> int:
    """That of all hosts; a slice that said nothing was lost."""
    silent = [exit_status.LOST] if self.silent else []
    return exit_status.of_all([*silent, *self.statuses])
