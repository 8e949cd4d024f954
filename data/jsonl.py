"""A file of JSON objects, one a line, read by number."""

import array
import hashlib
import json
import os
from collections.abc import Sequence

import numpy as np


class JsonlFile:
  """The good lines of a file. Their places are held in memory, not they.

  The file must not change while it is open.
  """

  def __init__(self, path: str, fields: Sequence[str], on_bad_record: str):
    if not os.path.exists(path):
      raise FileNotFoundError(
        f"jsonl:{path}: there is no such file (from {os.getcwd()}); mend the "
        "path"
      )
    if not os.path.isfile(path):
      raise ValueError(f"jsonl:{path}: not a file; name one file")
    self.name = f"jsonl:{path}"
    self.skipped = 0
    self._path = path
    self._fields = tuple(fields)
    self._descriptor = -1
    self._scan(on_bad_record)

  def _scan(self, on_bad_record: str) -> None:
    digest = hashlib.sha256()
    # Eight bytes a number where a list would take forty.
    places, offset, first_fault = array.array("q"), 0, ""
    with open(self._path, "rb") as file:
      for number, line in enumerate(file, 1):
        digest.update(line)
        try:
          self._parse(line)
          places.extend((number, offset, len(line)))
        except ValueError as error:
          fault = f"{self._path}: line {number} {error}"
          if on_bad_record == "error":
            raise ValueError(
              f"{fault}; mend it, or set data.on_bad_record=skip"
            ) from error
          first_fault = first_fault or fault
          self.skipped += 1
        offset += len(line)
    if not places:
      why = f"{self.skipped} lines are bad, the first: {first_fault}"
      raise ValueError(
        f"{self._path}: no record; {why if self.skipped else 'it is empty'}"
      )
    self._places = np.array(places, np.int64).reshape(-1, 3)
    self.fingerprint = digest.hexdigest()[:32]

  def _parse(self, line: bytes) -> dict[str, str]:
    """The fields of a line; ValueError completes "line 7 ..."."""
    try:
      # A byte order mark may stand at the beginning of a file.
      record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
      raise ValueError(f"is not UTF-8 ({error.reason})") from error
    except (ValueError, RecursionError) as error:
      raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(record, dict):
      raise ValueError(f"is a {type(record).__name__}, not a JSON object")
    return {field: _text(record, field) for field in self._fields}

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> dict[str, str]:
    _, offset, size = self._places[index].tolist()
    if self._descriptor < 0:
      self._descriptor = os.open(self._path, os.O_RDONLY)
    # Reads at a place, not at a common position: threads do not meet.
    try:
      return self._parse(os.pread(self._descriptor, size, offset))
    except ValueError as error:
      raise ValueError(
        f"{self.locate(index)} {error}: the file has changed since it was "
        "opened; start again"
      ) from error

  def __getstate__(self) -> dict:
    return self.__dict__ | {"_descriptor": -1}

  def __del__(self) -> None:
    # A file that was refused never had one.
    if self.__dict__.get("_descriptor", -1) >= 0:
      os.close(self._descriptor)

  def locate(self, index: int) -> str:
    return f"{self._path}: line {self._places[index, 0]}"


def open_file(
  path: str, fields: Sequence[str], on_bad_record: str
) -> JsonlFile:
  """The file at `path`; raises as `sources.open_source` says."""
  return JsonlFile(path, fields, on_bad_record)


def _text(record: dict, field: str) -> str:
  if field not in record:
    names = ", ".join(map(repr, record)) or "none"
    raise ValueError(
      f"has no field {field!r}; its fields are: {names} (data.source_field "
      "and data.target_field choose)"
    )
  value = record[field]
  if not isinstance(value, str):
    raise ValueError(
      f"has a {type(value).__name__} in the field {field!r}, not a string"
    )
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f"has half of a surrogate pair in the field {field!r}"
    ) from error
  return value
