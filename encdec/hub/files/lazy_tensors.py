"""Tensors by name that are read only when asked for.

The tensors of weight files, and views of them with other names or values.
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


class TensorView(Mapping[str, np.ndarray]):
  """Tensors under other names, some of them replaced.

  Args:
    names: new name to that in `tensors`.
    replaced: new name to the tensor in its place.
  """

  def __init__(
    self,
    tensors: Tensors,
    names: Mapping[str, str],
    replaced: Tensors | None = None,
  ):
    self.under, self._names = tensors, names
    self._replaced = replaced or {}

  def __getitem__(self, name: str) -> np.ndarray:
    if name in self._replaced:
      return self._replaced[name]
    return self.under[self._names[name]]

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __len__(self) -> int:
    return len(self._names)


def check_unchanged(tensors: Tensors) -> None:
  """`WeightFiles.check_unchanged`, also of a view; other mappings pass."""
  while isinstance(tensors, TensorView):
    tensors = tensors.under
  if isinstance(tensors, WeightFiles):
    tensors.check_unchanged()
