"""Tensors by name that are read only when asked for.

The tensors of weight files, and views of such a mapping: under other names, or
with some tensors replaced.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from encdec.hub.files.mmap import Tensor, WeightFileError

# By name.
Tensors = Mapping[str, np.ndarray]


class WeightFiles(Mapping[str, np.ndarray]):
  """Tensors by name; each is a read-only view of its file where it can be.

  Args:
    stamps: of the files, from before they were opened.
  """

  def __init__(
    self, tensors: Mapping[str, Tensor], stamps: Mapping[Path, tuple[int, ...]]
  ):
    self._tensors = dict(tensors)
    self._stamps = dict(stamps)

  def check_unchanged(self) -> None:
    """Raises WeightFileError if a file was modified since it was opened.

    A file that another has replaced is still there for who has it open.
    """
    for path, before in self._stamps.items():
      now = stamp_of(path)
      if now and now != before and now[0] == before[0]:
        raise WeightFileError(
          f"{path} has changed since it was opened; load the model again"
        )

  def __getitem__(self, name: str) -> np.ndarray:
    return self._tensors[name].array()

  def __iter__(self) -> Iterator[str]:
    return iter(self._tensors)

  def __len__(self) -> int:
    return len(self._tensors)


def stamp_of(path: Path) -> tuple[int, ...]:
  """Inode, size and time of change; empty where the file is gone."""
  try:
    status = path.stat()
  except FileNotFoundError:
    return ()
  return status.st_ino, status.st_size, status.st_mtime_ns


class RenamedTensors(Mapping[str, np.ndarray]):
  """Tensors under other names.

  Args:
    names: new name to that in `tensors`.
  """

  def __init__(self, tensors: Tensors, names: Mapping[str, str]):
    self.under, self._names = tensors, names

  def __getitem__(self, name: str) -> np.ndarray:
    return self.under[self._names[name]]

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __len__(self) -> int:
    return len(self._names)


class ReplacedTensors(Mapping[str, np.ndarray]):
  """The names of `tensors`; those also in `others` have the value there."""

  def __init__(self, tensors: Tensors, others: Tensors):
    self.under, self._others = tensors, others

  def __getitem__(self, name: str) -> np.ndarray:
    other = self._others.get(name)
    return self.under[name] if other is None else other

  def __iter__(self) -> Iterator[str]:
    return iter(self.under)

  def __len__(self) -> int:
    return len(self.under)


def check_unchanged(tensors: Tensors) -> None:
  """`WeightFiles.check_unchanged`, also of a view; other mappings pass."""
  while isinstance(tensors, RenamedTensors | ReplacedTensors):
    tensors = tensors.under
  if isinstance(tensors, WeightFiles):
    tensors.check_unchanged()
