"""Parallel texts: line n of one file belongs to line n of another.

The records have the fields `source` and `target`.
"""

import array
import itertools
from collections.abc import Sequence

import numpy as np

from data.schemes import files
from data.schemes.records import Faults, Record, check_fields, decode
from data.schemes.spans import file_of

FIELDS = ("source", "target")


class ParallelText:
  """The good pairs of lines of pairs of files, in order."""

  def __init__(
    self,
    name: str,
    sides: Sequence[files.Bytes],
    fields: Sequence[str],
    on_bad_record: str,
  ):
    self.name = name
    self._sides = tuple(sides)
    self._fields = tuple(fields)
    faults = Faults(on_bad_record)
    # The line's number, and place and size of either side.
    places, self._ends = array.array("q"), []
    for file in range(len(sides[0].paths)):
      self._scan(file, places, faults)
      self._ends.append(len(places) // 5)
    faults.check(name, len(places))
    self.skipped = faults.skipped
    self.fingerprint = files.digest_of(
      [digest for side in sides for digest in side.digests]
    )
    self._places = np.array(places, np.int64).reshape(-1, 5)

  def _scan(self, file: int, places: array.array, faults: Faults) -> None:
    lines = [side.lines(file) for side in self._sides]
    counts = [0, 0]
    for pair in itertools.zip_longest(*lines):
      counts = [
        n + (line is not None) for n, line in zip(counts, pair, strict=True)
      ]
      if counts[0] != counts[1]:
        continue
      source, target = pair
      try:
        self._record(source.number, source.raw, target.raw)
        places.append(source.number)
        places.extend((source.offset, source.size))
        places.extend((target.offset, target.size))
      except ValueError as error:
        faults.add(self._place(file, source.number), error)
    if counts[0] != counts[1]:
      source, target = (side.paths[file] for side in self._sides)
      raise ValueError(
        f"{source} has {counts[0]} lines, {target} {counts[1]}: line n of one "
        "must belong to line n of the other"
      )

  def _record(
    self, number: int, source: bytes | None, target: bytes | None
  ) -> Record:
    record = {}
    for field, raw in zip(FIELDS, (source, target), strict=True):
      if raw is None:
        raise ValueError(f"has more than {files.MAX_LINE} bytes")
      text = decode(raw)
      if text.endswith("\n"):
        text = text[:-1].removesuffix("\r")
      # A byte order mark may stand at the beginning of a file.
      record[field] = text.removeprefix("\ufeff") if number == 1 else text
    return {field: record[field] for field in self._fields}

  def _place(self, file: int, number: int) -> str:
    source, target = (side.paths[file] for side in self._sides)
    return f"{source} and {target}: line {number}"

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> Record:
    file = file_of(self._ends, index)
    number, *spans = self._places[index].tolist()
    raw = [
      side.read(file, *span)
      for side, span in zip(self._sides, (spans[:2], spans[2:]), strict=True)
    ]
    try:
      return self._record(number, *raw)
    except ValueError as error:
      raise ValueError(
        f"{self.locate(index)} {error}: the files have changed since they "
        "were opened; start again"
      ) from error

  def locate(self, index: int) -> str:
    return self._place(file_of(self._ends, index), int(self._places[index, 0]))


def open_files(
  location: str,
  fields: Sequence[str],
  on_bad_record: str,
  all_fields: bool = False,
) -> ParallelText:
  """The files of "source::target"; raises as `sources.open_source` says."""
  name = f"text:{location}"
  locations = location.split("::")
  if len(locations) != 2 or not all(locations):
    raise ValueError(
      f"{name}: write two files, as text:source_file::target_file"
    )
  check_fields(name, fields, FIELDS)
  sides = [files.Bytes(files.find("text", place)) for place in locations]
  counts = [len(side.paths) for side in sides]
  if counts[0] != counts[1]:
    raise ValueError(
      f"{name}: {counts[0]} source files and {counts[1]} target files; the "
      "sorted files of one side must belong to those of the other"
    )
  given = FIELDS if all_fields else fields
  return ParallelText(name, sides, given, on_bad_record)
