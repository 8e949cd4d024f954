"""Data sets by the library `datasets`: of the Hub's name, or a local folder.

The library is no requirement: whoever uses the scheme installs it. Its fourth
version is the first that never runs the code of a data set.
"""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.io.error_text import clipped, fault, few, plain
from data.schemes import arrow_values
from data.schemes.records import Faults, Record, check_fields

_INSTALL = "pip install 'datasets>=4'"
# Rows read at a time when all are.
_CHUNK = 1024


class HubDataset:
  """The good rows of a split, in order."""

  def __init__(
    self,
    location: str,
    split: str,
    fields: Sequence[str],
    on_bad_record: str,
    all_fields: bool,
  ):
    self.name = f"hf:{location}@{split}"
    rows = _rows(location, split)
    check_fields(self.name, fields, rows.column_names)
    for field in fields:
      kind = getattr(rows.features[field], "dtype", "")
      if kind not in ("string", "large_string"):
        raise ValueError(
          f"{self.name}: the field {field!r} holds "
          f"{clipped(str(rows.features[field]))}, not strings; name another"
        )
    # Neither a format that was saved with the rows, nor other columns: those
    # that are asked for too are not decoded to images or sounds.
    self._table = rows.select_columns(list(fields)).with_format(None)
    self._others = None
    if others := [n for n in rows.column_names if n not in fields]:
      if all_fields:
        self._others = rows.select_columns(others).with_format("arrow")
    faults, digest = Faults(on_bad_record), hashlib.sha256()
    good: list[int] = []
    for first in range(0, len(self._table), _CHUNK):
      chunk = self._table[first : first + _CHUNK]
      rows_of_chunk = zip(*(chunk[field] for field in fields), strict=True)
      for number, texts in enumerate(rows_of_chunk, first):
        try:
          digest.update(_framed(fields, texts))
          digest.update(self._other_fields_text(number))
          good.append(number)
        except ValueError as error:
          faults.add(self._place(number), error)
    faults.check(self.name, len(good))
    self._good = np.array(good, np.int64)
    self.skipped = faults.skipped
    self.fingerprint = digest.hexdigest()[:32]

  def _place(self, row: int) -> str:
    return f"{self.name}: row {row}"

  def __len__(self) -> int:
    return len(self._good)

  def __getitem__(self, index: int) -> Record:
    number = int(self._good[index])
    return self._other_fields(number) | self._table[number]

  def _other_fields(self, number: int) -> Record:
    if self._others is None:
      return {}
    row = self._others[number]
    return {
      name: arrow_values.value(row.column(name)[0]) for name in row.column_names
    }

  def _other_fields_text(self, number: int) -> bytes:
    fields = self._other_fields(number)
    return json.dumps(fields).encode() if fields else b""

  def locate(self, index: int) -> str:
    return self._place(int(self._good[index]))


def open_dataset(
  location: str,
  split: str,
  fields: Sequence[str],
  on_bad_record: str,
  all_fields: bool = False,
) -> HubDataset:
  """The split of "name", "user/name", "user/name/config" or of a folder.

  A folder is one that `save_to_disk` wrote, or has files that the library
  reads. Raises as `sources.open_source` says.
  """
  return HubDataset(location, split, fields, on_bad_record, all_fields)


def _framed(fields: Sequence[str], texts: Sequence[str | None]) -> bytes:
  """The texts of a row, told apart; ValueError completes "row 7 ..."."""
  framed = b""
  for field, text in zip(fields, texts, strict=True):
    if text is None:
      raise ValueError(f"is null in the field {field!r}")
    raw = text.encode()
    framed += len(raw).to_bytes(8, "big") + raw
  return framed


def _rows(location: str, split: str) -> Any:
  """The rows of a split, in the library's type."""
  name = f"hf:{location}@{split}"
  library: Any = _library(name)
  try:
    if os.path.isdir(location):
      made = _of_folder(library, location)
    else:
      repository, config = _parse(name, location)
      made = library.load_dataset(repository, config)
  # Whatever its readers of files raise.
  except Exception as error:
    reason = fault(error)
    raise ValueError(
      f"{name}: neither a folder here nor what the Hub gives ({reason}); fix "
      "the name, or save the data set in a folder"
    ) from error
  if not hasattr(made, "keys"):
    made = {"all": made}
  if split not in made:
    raise ValueError(
      f"{name}: there is no split {split!r}; there are {few(map(plain, made))}"
    )
  return made[split]


def _of_folder(library: Any, folder: str) -> Any:
  saved = ("dataset_dict.json", "state.json")
  if any(os.path.isfile(os.path.join(folder, name)) for name in saved):
    return library.load_from_disk(folder)
  return library.load_dataset(folder)


def _parse(name: str, location: str) -> tuple[str, str | None]:
  """The repository and its configuration: always the third part."""
  parts = location.split("/")
  if len(parts) > 3 or not all(parts):
    raise ValueError(f"{name}: write hf:user/name or hf:user/name/config")
  return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None


def _library(name: str) -> Any:
  try:
    version = importlib.metadata.version("datasets")
  except importlib.metadata.PackageNotFoundError:
    raise ValueError(
      f"{name}: hf: needs the library `datasets`; install it by {_INSTALL}"
    ) from None
  if int(version.split(".")[0]) < 4:
    raise ValueError(
      f"{name}: datasets {version} may run the code of a data set; install a "
      f"later one by {_INSTALL}"
    )
  import datasets  # pyright: ignore[reportMissingImports]

  return datasets
