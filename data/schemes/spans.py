"""Spans: records that are pieces of files, found by their places."""

import array
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from data.schemes import files
from data.schemes.records import Faults, Record


@runtime_checkable
class Form(Protocol):
  """How a file is divided into records, and what one says."""

  def split(
    self, file: int, lines: Iterable[files.Line]
  ) -> Iterator[files.Line]:
    """The pieces of a file, each of one line or more."""
    ...

  def parse(self, file: int, raw: bytes) -> Record:
    """The record of a piece; ValueError completes "line 7 ..."."""
    ...


class Spans:
  """The good records of files, in order; their places are held in memory."""

  def __init__(
    self, name: str, contents: files.Bytes, form: Form, on_bad_record: str
  ):
    self.name = name
    self._contents = contents
    self._form = form
    faults = Faults(on_bad_record)
    # Eight bytes a number where a list would take forty.
    places, self._ends = array.array("q"), []
    for file, path in enumerate(contents.paths):
      for piece in form.split(file, contents.lines(file)):
        try:
          self._parse(file, piece.raw)
          places.extend((piece.number, piece.offset, piece.size))
        except ValueError as error:
          faults.add(f"{path}: line {piece.number}", error)
      self._ends.append(len(places) // 3)
    faults.check(name, len(places))
    self.skipped = faults.skipped
    self.fingerprint = files.digest_of(contents.digests)
    self._places = np.array(places, np.int64).reshape(-1, 3)

  def _parse(self, file: int, raw: bytes | None) -> Record:
    if raw is None:
      raise ValueError(f"has more than {files.MAX_LINE} bytes")
    return self._form.parse(file, raw)

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> Record:
    file = file_of(self._ends, index)
    _, offset, size = self._places[index].tolist()
    try:
      return self._parse(file, self._contents.read(file, offset, size))
    except ValueError as error:
      raise ValueError(
        f"{self.locate(index)} {error}: the file has changed since it was "
        "opened; start again"
      ) from error

  def locate(self, index: int) -> str:
    path = self._contents.paths[file_of(self._ends, index)]
    return f"{path}: line {self._places[index, 0]}"


def file_of(ends: list[int], index: int) -> int:
  """The file that holds a record, of files that end before `ends`."""
  return int(np.searchsorted(ends, index, "right"))
