"""Writes files that have their names only when they are complete."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

# In the names of incomplete files; a process id follows.
PARTIAL = ".partial-"


@contextlib.contextmanager
def partial_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
  """Names to write under; what is not renamed by the end is deleted."""
  partial = [p.with_name(f"{p.name}{PARTIAL}{os.getpid()}") for p in paths]
  try:
    yield partial
  finally:
    for path in partial:
      path.unlink(missing_ok=True)


@contextlib.contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
  """A file to write, whose bytes are on the disk when the block ends."""
  with open(path, "wb") as stream:
    yield stream
    stream.flush()
    os.fsync(stream.fileno())


def write_text(path: Path, text: str) -> None:
  """Writes a file atomically: it is whole or absent."""
  with partial_files([path]) as (partial,):
    with synced(partial) as stream:
      stream.write(text.encode("utf-8"))
    os.replace(partial, path)
