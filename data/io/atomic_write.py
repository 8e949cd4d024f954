"""Writing files that are whole or absent, whenever the process ends."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

# What to do where a file of the store cannot be written.
STORE = (
  "make room there, or set data.store to another folder; run again, and it "
  "goes on from what is complete"
)


@contextlib.contextmanager
def replacing(path: Path, advice: str = "") -> Iterator[Path]:
  """A file to write, which has the name `path` when it is complete.

  Args:
    advice: the end of the message of an error, which then names `path`; empty:
      the error is raised as it is, with a name.

  Raises:
    OSError: it cannot be written.
  """
  # Hosts that share the folder may have equal process numbers.
  partial = path.with_name(f"{path.name}.writing-{uuid.uuid4().hex}")
  try:
    with contextlib.nullcontext() if advice else naming(path):
      yield partial
      sync(partial)
    partial.replace(path)
  except Exception as error:
    partial.unlink(missing_ok=True)
    if not (advice and isinstance(error, OSError)):
      raise
    raise OSError(f"{path} cannot be written ({error}): {advice}") from error


def write_text(path: Path, text: str) -> None:
  """Writes a whole file or, killed at any moment, none of it."""
  with replacing(path) as partial:
    partial.write_text(text, encoding="utf-8")


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
