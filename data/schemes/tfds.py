"""A dataset of TensorFlow Datasets, read without TensorFlow.

Only the array_record format is read: its records are found by number, and
the other formats need TensorFlow or lose records.
"""

import os
from collections.abc import Sequence
from typing import Any

from array_record.python import array_record_data_source

from data.io.digests import file_digest
from data.io.error_text import fault, few, plain
from data.schemes import files
from data.schemes.records import Record, as_json


class _BadRecord(ValueError):
  """A record that may be skipped."""


class Dataset:
  """A split, by number; a text that is not UTF-8 is a bad record."""

  def __init__(
    self,
    location: str,
    split: str,
    fields: Sequence[str],
    on_bad_record: str,
    all_fields: bool,
  ):
    self.name = f"tfds:{location}@{split}"
    self.skipped = 0
    builder = _builder(location)
    known = ["all", *builder.info.splits]
    if split not in known:
      raise ValueError(
        f"{self.name}: there is no split {split!r}; there are "
        f"{few(map(plain, known))}"
      )
    known = sorted(builder.info.features or ())
    for field in fields:
      if field not in known:
        raise ValueError(
          f"{self.name}: its records have no field {field!r}; they have "
          f"{few(map(plain, known))}"
        )
    self._fields = tuple(fields)
    self._all_fields = all_fields
    self._records = builder.as_data_source(split)
    declared = builder.info.splits[split].num_examples
    # Counted in the files: the length of a data source is what dataset_info
    # declares, whatever the files hold.
    paths = builder.info.splits[split].filepaths
    stored = _count(paths)
    if not stored == len(self._records) == declared:
      raise ValueError(
        f"{self.name}: {stored} records were found of {declared} in "
        f"{builder.data_dir}; remove that folder and prepare it again"
      )
    # Of the bytes: a set that was made anew has the name of the one before.
    self.fingerprint = files.digest_of(
      [file_digest(path)[:32] for path in paths]
    )
    self._numbers: Sequence[int] = range(stored)
    if on_bad_record == "skip":
      # Every record is read, which "error" leaves for when it is needed.
      self._numbers = [n for n in self._numbers if self._is_good(n)]
      self.skipped = stored - len(self._numbers)

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, index: int) -> Record:
    return self._read(self._numbers[index])

  def locate(self, index: int) -> str:
    return self._place(self._numbers[index])

  def _read(self, number: int) -> Record:
    record = self._records[number]
    others = as_json(record) if self._all_fields else {}
    texts = {f: self._text(number, f, record[f]) for f in self._fields}
    return others | texts

  def _is_good(self, number: int) -> bool:
    try:
      self._read(number)
    except _BadRecord:
      return False
    return True

  def _text(self, number: int, field: str, value: object) -> str:
    # Strings come back as bytes.
    if not isinstance(value, bytes):
      raise ValueError(
        f"{self._place(number)} has a {type(value).__name__} in the field "
        f"{field!r}, not a text; name another field"
      )
    try:
      return value.decode()
    except UnicodeDecodeError as error:
      raise _BadRecord(
        f"{self._place(number)}: the field {field!r} is not UTF-8; prepare the "
        "dataset again, or set data.on_bad_record=skip"
      ) from error

  def _place(self, number: int) -> str:
    return f"{self.name}: record {number}"


def open_dataset(
  location: str,
  split: str,
  fields: Sequence[str],
  on_bad_record: str,
  all_fields: bool = False,
) -> Dataset:
  """The split of "name[/config][:version]" as prepared in TFDS_DATA_DIR."""
  return Dataset(location, split, fields, on_bad_record, all_fields)


def _count(paths: Sequence[Any]) -> int:
  for path in paths:
    if not path.exists():
      raise FileNotFoundError(
        f"{path}: this file of the data set is missing; prepare it again"
      )
  names = [os.fspath(path) for path in paths]
  with array_record_data_source.ArrayRecordDataSource(names) as records:
    return len(records)


def _builder(location: str) -> Any:
  # Any: the package's decorators hide the types of its methods.
  # A second's work, for those who read such a data set alone.
  from tensorflow_datasets.core import read_only_builder

  folder = os.environ.get("TFDS_DATA_DIR") or None
  prepare = (
    f"tfds build {location} --file_format=array_record (which needs TensorFlow "
    "for most datasets, once and on any machine; reading never does)"
  )
  try:
    # From its files alone: the code that made a dataset may need TensorFlow.
    builder = read_only_builder.builder_from_files(location, data_dir=folder)
  except ValueError as error:
    raise ValueError(
      f"tfds:{location}: no such dataset is prepared in "
      f"{folder or 'the default folder'} ({fault(error)}); fix "
      f"the name, set TFDS_DATA_DIR to its folder, or run {prepare}"
    ) from error
  form: Any = builder.info.file_format
  if form is None or form.value != "array_record":
    raise ValueError(
      f"tfds:{location}: prepared as {form and form.value} in "
      f"{builder.data_dir}, which is not read here; remove it and run {prepare}"
    )
  return builder
