"""Locks on files: one process at a time, none left behind by a killed one."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from absl import logging

_POLL_SECONDS, _SAY_SECONDS = 0.2, 60.0


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[str], str]) -> Iterator[None]:
  """Inside, no other process has this lock. A killed one has none.

  Args:
    path: of a file that stays.
    waiting: makes what is logged while another process has it, named.
  """
  said = -_SAY_SECONDS
  with open(path, "a+") as file:
    try:
      while not _try_lock(file):
        if time.monotonic() - said >= _SAY_SECONDS:
          said = time.monotonic()
          logging.info("%s", waiting(_holder(file)))
        time.sleep(_POLL_SECONDS)
    except NoLocks as error:
      raise OSError(
        f"{error}; set data.store to a folder of one that has"
      ) from error
    _sign(file)
    yield


class LockTaken(Exception):
  """Another process has the lock; the message is who, and on which host."""


class NoLocks(OSError):
  """The file system of a file cannot lock it; the message says so."""


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
  """Inside, no other process has this lock; one that asks is told who has it.

  Hosts that share the file see each other's locks where their file system
  passes them on, as NFS does. A killed process has none, whatever it left.

  Args:
    path: of a file that is there as long as somebody has the lock.

  Raises:
    LockTaken: another process has it.
    OSError: the file cannot be made; `NoLocks`: or cannot be locked.
  """
  while True:
    with open(path, "a+") as file:
      if not _try_lock(file):
        raise LockTaken(_holder(file))
      # Who had it may have removed the file since it was opened.
      if not _is_at(file, path):
        continue
      _sign(file)
      try:
        yield
      finally:
        path.unlink(missing_ok=True)
      return


def _is_at(file: IO[str], path: Path) -> bool:
  try:
    return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
  except FileNotFoundError:
    return False


def _holder(file: IO[str]) -> str:
  file.seek(0)
  return file.read() or "another process"


def _sign(file: IO[str]) -> None:
  """Writes who has the lock, for those who ask for it meanwhile."""
  holder = f"process {os.getpid()} of {socket.gethostname()}"
  # A full disk takes the name alone: what follows says that it is full.
  with contextlib.suppress(OSError):
    file.truncate(0)
    os.write(file.fileno(), holder.encode())


def _try_lock(file: IO[str]) -> bool:
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError as error:
    raise NoLocks(
      f"{file.name}: this file system has no locks ({error})"
    ) from error
  return True
