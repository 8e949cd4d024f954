"""A dataset of TensorFlow Datasets, read without TensorFlow.

Only the array_record format is read: its records are found by number, and
the other formats need TensorFlow or lose records.
"""

import os
from collections.abc import Sequence
from typing import Any

from array_record.python import array_record_data_source
from tensorflow_datasets.core import read_only_builder


class Dataset:
  """A split; its texts were checked when the dataset was built."""

  def __init__(self, location: str, split: str, fields: Sequence[str]):
    self.name = f"tfds:{location}@{split}"
    self.skipped = 0
    builder = _builder(location)
    known = ["all", *builder.info.splits]
    if split not in known:
      raise ValueError(
        f"{self.name}: there is no split {split!r}; there are "
        f"{', '.join(known)}"
      )
    known = sorted(builder.info.features or ())
    for field in fields:
      if field not in known:
        raise ValueError(
          f"{self.name}: its records have no field {field!r}; they have "
          f"{', '.join(known)}"
        )
    self._fields = tuple(fields)
    self._records = builder.as_data_source(split)
    declared = builder.info.splits[split].num_examples
    # Counted in the files: the length of a data source is what dataset_info
    # declares, whatever the files hold.
    found = _count(builder.info.splits[split].filepaths)
    if not found == len(self._records) == declared:
      raise ValueError(
        f"{self.name}: {found} records were found of {declared} in "
        f"{builder.data_dir}; remove that folder and prepare it again"
      )
    self.fingerprint = f"{builder.info.full_name}@{split}:{declared}"

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, str]:
    record = self._records[index]
    return {f: self._text(index, f, record[f]) for f in self._fields}

  def _text(self, index: int, field: str, value: object) -> str:
    # Strings come back as bytes.
    if not isinstance(value, bytes):
      raise ValueError(
        f"{self.locate(index)} has a {type(value).__name__} in the field "
        f"{field!r}, not a text; name another field"
      )
    try:
      return value.decode()
    except UnicodeDecodeError as error:
      raise ValueError(
        f"{self.locate(index)}: the field {field!r} is not UTF-8"
      ) from error

  def locate(self, index: int) -> str:
    return f"{self.name}: record {index}"


def open_dataset(location: str, split: str, fields: Sequence[str]) -> Dataset:
  """The split of "name[/config][:version]" as prepared in TFDS_DATA_DIR."""
  return Dataset(location, split, fields)


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
      f"{folder or 'the default folder'} ({str(error).splitlines()[0]}); mend "
      f"the name, set TFDS_DATA_DIR to its folder, or run {prepare}"
    ) from error
  form: Any = builder.info.file_format
  if form is None or form.value != "array_record":
    raise ValueError(
      f"tfds:{location}: prepared as {form and form.value} in "
      f"{builder.data_dir}, which is not read here; remove it and run {prepare}"
    )
  return builder
