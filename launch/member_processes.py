"""Members of a sweep as processes of this machine, which end with this one."""

import functools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from launch import cluster_command, local
from launch.exit_status import Ended
from launch.members import Member

# Of what a member has written, enough to hold its last line.
_KEPT = 4096


class Output:
  """Passes on what a process writes, and remembers the end of it."""

  def __init__(self, stream: IO[bytes], to: IO[bytes], prefix: str) -> None:
    """Begins at once, in a thread.

    Args:
      prefix: of each line; empty: bytes are passed on as they come.
    """
    self.end = b""
    self.thread = threading.Thread(
      target=self._copy, args=(stream, to, prefix.encode()), daemon=True
    )
    self.thread.start()

  def _copy(self, stream: IO[bytes], to: IO[bytes], prefix: bytes) -> None:
    # A line at a time, or what there is: a bar ends no line.
    what_there_is = functools.partial(os.read, stream.fileno(), 1 << 16)
    read = stream.readline if prefix else what_there_is
    with stream:
      while data := read():
        self.end = (self.end + data)[-_KEPT:]
        to.write(prefix + data)
        to.flush()

  def last_line(self) -> str:
    # Whoever still has the other end is not waited for.
    self.thread.join(timeout=5)
    return cluster_command.last_line(self.end.decode(errors="replace"))


class MemberProcesses:
  """Starts members and sees them end.

  Attributes:
    received: the signals so far; the first one goes to the processes, and the
      second one kills them.
    running: members by name.
  """

  def __init__(self, workdir: Path, side_by_side: bool) -> None:
    """Takes over this process's signals.

    Args:
      side_by_side: several run at a time, and lines say whose they are.
    """
    self.workdir, self.side_by_side = workdir, side_by_side
    self.children: list[subprocess.Popen] = []
    self.received = local.pass_signals_on(self.children)
    self.running: dict[str, Member] = {}
    self.processes: dict[str, tuple[subprocess.Popen, Output]] = {}

  def start(self, member: Member) -> bool:
    """Starts a member; False: a signal has come first."""
    both = self.side_by_side
    options = (
      {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
      if both
      else {"stderr": subprocess.PIPE}
    )
    command = member.command(self.workdir)
    if not local.start_among(self.children, self.received, command, **options):
      return False
    process = self.children[-1]
    stream = process.stdout if both else process.stderr
    to = sys.stdout.buffer if both else sys.stderr.buffer
    prefix = f"[{member.name}] " if both else ""
    assert stream is not None
    self.running[member.name] = member
    self.processes[member.name] = process, Output(stream, to, prefix)
    return True

  def ended(self) -> dict[str, Ended]:
    """The members that have ended since the last call."""
    statuses = {}
    for name in self.running:
      if (status := self.processes[name][0].poll()) is not None:
        statuses[name] = status if status >= 0 else 128 - status
    if self.received:
      return {}  # They may have ended because of the signal.
    found = {}
    for name, status in statuses.items():
      del self.running[name]
      error = self.processes[name][1].last_line() if status else ""
      found[name] = Ended(status, error)
    return found

  def close(self, member: Member) -> None:
    """Forgets a member whose end is in the table."""
    process, _ = self.processes.pop(member.name)
    self.children.remove(process)

  def pause(self) -> None:
    time.sleep(0.05)

  def interrupted(self, before: Member | None) -> str:
    """Waits for those that still save; says where the sweep was stopped."""
    names = [*self.running]
    while any(process.poll() is None for process in self.children):
      time.sleep(0.05)
    if names:
      where = f"in {', '.join(names)}"
    else:
      assert before is not None, "else all had ended"
      where = f"before {before.name}"
    return f"interrupted {where}; the same command goes on"
