"""Records: the texts of the fields that were asked for, or what is bad."""

import json
from collections.abc import Sequence

Record = dict[str, str]


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
        f"{fault}; mend it, or set data.on_bad_record=skip"
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
  try:
    return raw.decode()
  except UnicodeDecodeError as error:
    raise ValueError(f"is not UTF-8 ({error.reason})") from error


def from_json(raw: bytes, fields: Sequence[str]) -> Record:
  """The fields of a JSON object; ValueError completes "line 7 ..."."""
  # A byte order mark may stand at the beginning of a file.
  text = decode(raw).removeprefix("\ufeff")
  try:
    record = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"is not JSON ({error})") from error
  if not isinstance(record, dict):
    raise ValueError(f"is a {type(record).__name__}, not a JSON object")
  return {field: _text(record, field) for field in fields}


def check_fields(
  name: str, fields: Sequence[str], known: Sequence[str]
) -> None:
  """Raises ValueError where all records of `name` lack one of `fields`."""
  for field in fields:
    if field not in known:
      raise ValueError(
        f"{name}: its records have no field {field!r}; they have "
        f"{', '.join(known)} (data.source_field and data.target_field choose)"
      )


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
