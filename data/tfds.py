"""A dataset of TensorFlow Datasets, read without TensorFlow.

Only the array_record format is read: its records are found by number, and
the other formats need TensorFlow or lose records.
"""

import os
from collections.abc import Sequence

import tensorflow_datasets


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
    for field in fields:
      if field not in (builder.info.features or {}):
        raise ValueError(
          f"{self.name}: its records have no field {field!r}; they have "
          f"{', '.join(builder.info.features or {})}"
        )
    self._fields = tuple(fields)
    self._records = builder.as_data_source(split=split)
    declared = builder.info.splits[split].num_examples
    if len(self._records) != declared:
      raise ValueError(
        f"{self.name}: {len(self._records)} records were read of {declared} "
        f"in {builder.data_dir}; remove that folder and prepare it again"
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


def _builder(location: str) -> tensorflow_datasets.core.DatasetBuilder:
  folder = os.environ.get("TFDS_DATA_DIR") or None
  try:
    builder = tensorflow_datasets.builder(location, data_dir=folder)
  except tensorflow_datasets.core.registered.DatasetNotFoundError as error:
    raise ValueError(
      f"tfds:{location}: there is no such dataset; mend its name, or set "
      "TFDS_DATA_DIR to the folder that holds it"
    ) from error
  if not builder.is_prepared():
    raise ValueError(
      f"tfds:{location}: not prepared in {builder.data_dir}; run tfds build "
      f"{location.replace(':', '==')} --file_format=array_record"
    )
  return builder
