"""The inputs of --mode=predict: lines of a text file, or records of a URI."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data import sources
from data.io.digests import digest
from data.schemes.file_extensions import uri_of
from train.config import Config
from train.modes.prediction_file import Fields

# "scheme:location@split", or a built-in set's "name@split".
URI = re.compile(r"(\w+:[^\\]|\w+@)")


@dataclasses.dataclass(frozen=True)
class Input:
  """A source to predict.

  Attributes:
    number: among those that are read, from 0.
    given: what its object in the output holds beside what is found.
  """

  number: int
  text: str
  given: Mapping[str, Any]


class TextFile:
  """The lines of a file, in order; the file is read twice, never held."""

  def __init__(self, path: str, fields: Fields):
    """Raises ValueError, naming it, for a line that is not UTF-8."""
    self.path, self.fields = path, fields
    lines = [0]
    self.fingerprint = digest(self._checked(lines))
    self.size = lines[0]

  def _checked(self, lines: list[int]) -> Iterator[bytes]:
    with open(self.path, "rb") as file:
      for line in file:
        lines[0] += 1
        try:
          line.decode("utf-8")
        except UnicodeDecodeError as error:
          raise ValueError(
            f"{self.path}: line {lines[0]} is not UTF-8 ({error.reason}); "
            "convert the file"
          ) from error
        yield line

  def __len__(self) -> int:
    return self.size

  def read(self, start: int) -> Iterator[Input]:
    """The lines from number `start`."""
    # A byte order mark may stand at the beginning of a file.
    with open(self.path, encoding="utf-8-sig", newline="\n") as file:
      # What is added to the file meanwhile was not counted.
      lines = itertools.islice(file, start, self.size)
      for number, line in enumerate(lines, start):
        text = line.rstrip("\r\n")
        yield Input(number, text, {"id": number, self.fields.source: text})


class Records:
  """The records of a source, in order, one field of which is predicted."""

  def __init__(self, source: sources.Source, field: str, fields: Fields):
    self.source, self.field, self.fields = source, field, fields
    self.fingerprint = digest((source.fingerprint, field, "all fields"))

  def __len__(self) -> int:
    return len(self.source)

  def read(self, start: int) -> Iterator[Input]:
    """The records from number `start`."""
    for number in range(start, len(self.source)):
      record = self.source[number]
      given = _given(number, record, self.field, self.fields)
      yield Input(number, record[self.field], given)


Inputs = TextFile | Records


def _given(
  number: int, record: Mapping[str, Any], field: str, fields: Fields
) -> dict[str, Any]:
  """What the object of a record holds beside what is found.

  Args:
    field: the one that is predicted.
    fields: names of the object.
  """
  others = {name: value for name, value in record.items() if name != field}
  own = others.pop("id", None)
  number = number if own in (None, "") else own
  given = {"id": number, fields.source: record[field]}
  ours = {*given, *fields.found}
  taken = ours | set(others)
  for name, value in others.items():
    free = name
    while name in ours and free in taken:
      free = f"input_{free}"
    taken.add(free)
    given[free] = value
  return given


def open_inputs(source: str, config: Config, fields: Fields) -> Inputs:
  """The sources that `source` names, for objects with these fields.

  Raises:
    ValueError, OSError: it cannot be read, or a record lacks the field.
  """
  uri = source if URI.match(source) else uri_of(source)
  if uri != source and not Path(source).is_file():
    raise ValueError(f"--input={source}: there is no such file")
  if not uri:
    return TextFile(source, fields)
  field = config.data.source_field
  records = sources.open_source(
    uri,
    fields=[field],
    on_bad_record=config.data.on_bad_record,
    all_fields=True,
  )
  return Records(records, field, fields)
