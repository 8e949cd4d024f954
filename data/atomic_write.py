"""Writing files that are whole or absent, whenever the process ends."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


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


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
  """Inside, an error of a file that has no name gets this one."""
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, str(path)) from error


def sync(path: Path) -> None:
  """What is written of a file, or the names in a folder, is on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
