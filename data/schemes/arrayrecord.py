"""ArrayRecord files whose records are JSON objects in UTF-8."""

import array
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_record.python import (
  array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)

from data.io.digests import file_digest
from data.io.error_text import fault
from data.schemes import files
from data.schemes.records import Faults, Record, from_json
from data.schemes.spans import file_of

# Files open at a time, and records read at once when all are.
_OPEN = 32
_CHUNK = 256
# Records are asked for by number: nothing is read ahead, or by threads.
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


class JsonRecords:
  """The good records of a path or glob; see `sources.open_source`."""

  def __init__(
    self,
    location: str,
    fields: Sequence[str],
    on_bad_record: str,
    all_fields: bool = False,
  ):
    self.name = name = f"arrayrecord:{location}"
    self._paths = paths = tuple(files.find("arrayrecord", location))
    self._fields = tuple(fields)
    self._all_fields = all_fields
    self._begin()
    faults = Faults(on_bad_record)
    numbers, self._ends = array.array("q"), []
    for file in range(len(paths)):
      self._scan(file, numbers, faults)
      self._ends.append(len(numbers))
    faults.check(name, len(numbers))
    self.skipped = faults.skipped
    self._numbers = np.array(numbers, np.int64)
    self.fingerprint = files.digest_of([file_digest(p)[:32] for p in paths])

  def _begin(self) -> None:
    self._open = functools.lru_cache(_OPEN)(_Reader)

  def __getstate__(self) -> dict[str, Any]:
    return {k: v for k, v in self.__dict__.items() if k != "_open"}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._begin()

  def _scan(self, file: int, numbers: array.array, faults: Faults) -> None:
    path = self._paths[file]
    reader = self._open(path)
    for first in range(0, reader.size, _CHUNK):
      chunk = range(first, min(first + _CHUNK, reader.size))
      for number, raw in zip(chunk, reader.read(chunk), strict=True):
        try:
          from_json(raw, self._fields, self._all_fields)
          numbers.append(number)
        except ValueError as error:
          faults.add(self._place(file, number), error)

  def _place(self, file: int, number: int) -> str:
    return f"{self._paths[file]}: record {number}"

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, index: int) -> Record:
    path = self._paths[file_of(self._ends, index)]
    (raw,) = self._open(path).read([int(self._numbers[index])])
    return from_json(raw, self._fields, self._all_fields)

  def locate(self, index: int) -> str:
    return self._place(file_of(self._ends, index), int(self._numbers[index]))


class _Reader:
  """An open file of ArrayRecord."""

  def __init__(self, path: str):
    self._path = path
    self._inner = array_record_module.ArrayRecordReader(path, _OPTIONS)
    if not self._inner.ok():
      # Its reason is had by closing it.
      self._call(self._inner.close)
    self.size: int = self._inner.num_records()

  def read(self, numbers: Sequence[int]) -> Sequence[bytes]:
    """The records of these numbers."""
    return self._call(self._inner.read, list(numbers))

  def _call(self, function: Any, *arguments: Any) -> Any:
    try:
      return function(*arguments)
    except RuntimeError as error:
      # Of some damage it says nothing.
      reason = fault(error) if str(error).strip() else "unreadable"
      raise ValueError(
        f"{self._path}: damaged or cut short, or no ArrayRecord file "
        f"({reason}); make it again"
      ) from error

  def __del__(self) -> None:
    if "size" in self.__dict__:
      self._inner.close()
