"""Records: the texts of the fields that were asked for, or what is bad."""

import base64
import codecs
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.io.error_text import fault, few, plain, quoted

# Texts; of a source that was opened with all fields, the others as JSON has
# them.
Record = dict[str, Any]


class Faults:
  """What becomes of bad records: the first one raises, or all are counted."""

  def __init__(self, on_bad_record: str):
    self.skipped = 0
    self._skip = on_bad_record == "skip"
    self._first = ""

  def add(self, place: str, error: ValueError) -> None:
    """Takes note of what is wrong at `place`, or raises it."""
    fault = f"{place} {error}"
    if not self._skip:
      raise ValueError(
        f"{fault}; fix it, or set data.on_bad_record=skip"
      ) from error
    self._first = self._first or fault
    self.skipped += 1

  def check(self, name: str, size: int) -> None:
    """Raises ValueError where no record is left."""
    if size:
      return
    why = f"{self.skipped} are bad, the first: {self._first}"
    raise ValueError(
      f"{name}: no record; {why if self.skipped else 'it is empty'}"
    )


def decode(raw: bytes) -> str:
  """Text of UTF-8; ValueError completes "line 7 ..."."""
  if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    raise ValueError("is UTF-16, and must be UTF-8")
  try:
    return raw.decode()
  except UnicodeDecodeError as error:
    raise ValueError(f"is not UTF-8 ({error.reason})") from error


def from_json(
  raw: bytes, fields: Sequence[str], all_fields: bool = False
) -> Record:
  """The fields of a JSON object; ValueError completes "line 7 ..."."""
  # A byte order mark may stand at the beginning of a file.
  text = decode(raw).removeprefix("\ufeff")
  try:
    record = json.loads(text)
    others = as_json(record) if all_fields else {}
  except (ValueError, RecursionError) as error:
    raise ValueError(f"is not JSON ({fault(error)})") from error
  if not isinstance(record, dict):
    raise ValueError(f"is a {type(record).__name__}, not a JSON object")
  return others | {field: _text(record, field) for field in fields}


def as_json(value: Any) -> Any:
  """A value of a record as JSON has it, which Python reads back as equal.

  Bytes are text where they are UTF-8, else base64; numbers that are not finite
  are null; arrays are lists, times as in ISO 8601, keys strings; what else
  JSON has no form for is what `str` makes of it.
  """
  if value is None or isinstance(value, (bool, int, str)):
    return value
  if isinstance(value, float):
    return float(value) if math.isfinite(value) else None
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      return base64.b64encode(value).decode()
  # Times of numpy may be finer than Python's, which are integers then.
  if isinstance(value, (np.datetime64, np.timedelta64)):
    return str(value)
  if isinstance(value, np.generic):
    return as_json(value.item())
  if isinstance(value, np.ndarray):
    return as_json(value.tolist())
  if isinstance(value, Mapping):
    return {str(key): as_json(part) for key, part in value.items()}
  if isinstance(value, (list, tuple)):
    return [as_json(part) for part in value]
  if hasattr(value, "isoformat"):
    return value.isoformat()
  return str(value)


def check_fields(
  name: str, fields: Sequence[str], known: Sequence[str]
) -> None:
  """Raises ValueError where all records of `name` lack one of `fields`."""
  for field in fields:
    if field not in known:
      raise ValueError(
        f"{name}: its records have no field {field!r}; they have "
        f"{few(map(plain, known))} (data.source_field and data.target_field "
        "choose)"
      )


def _text(record: dict, field: str) -> str:
  if field not in record:
    names = few(map(quoted, record)) or "none"
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
