"""Files that are whole or absent, and a lock for who makes them."""

import contextlib
import fcntl
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from absl import logging

_POLL_SECONDS, _SAY_SECONDS = 0.2, 60.0


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """A file to write, which has the name `path` when it is complete.

  Raises OSError naming `path` where it cannot be written.
  """
  # Hosts that share the folder may have equal process numbers.
  partial = path.with_name(f"{path.name}.writing-{uuid.uuid4().hex}")
  try:
    yield partial
    sync(partial)
    partial.replace(path)
  except OSError as error:
    partial.unlink(missing_ok=True)
    raise OSError(
      f"{path} cannot be written ({error}): make room there, or set data.store "
      "to another folder; run again, and it goes on from what is complete"
    ) from error


def sync(path: Path) -> None:
  """What is written of a file, or the names in a folder, is on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[str], str]) -> Iterator[None]:
  """Inside, no other process has this lock. A killed one has none.

  Args:
    path: of a file that stays.
    waiting: makes what is logged while another process has it, named.
  """
  said = -_SAY_SECONDS
  with open(path, "a+") as file:
    while not _try_lock(file):
      if time.monotonic() - said >= _SAY_SECONDS:
        said = time.monotonic()
        file.seek(0)
        logging.info("%s", waiting(file.read() or "another process"))
      time.sleep(_POLL_SECONDS)
    file.truncate(0)
    holder = f"process {os.getpid()} of {socket.gethostname()}"
    # A full disk takes the name alone: what follows says that it is full.
    with contextlib.suppress(OSError):
      os.write(file.fileno(), holder.encode())
    yield


def _try_lock(file: IO[str]) -> bool:
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError as error:
    raise OSError(
      f"{file.name}: this file system has no locks ({error}); set data.store "
      "to a folder of one that has"
    ) from error
  return True
