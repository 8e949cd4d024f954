"""Parquet files, read by row: a row group is read when it is needed."""

import bisect
import functools
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.io.digests import file_digest
from data.io.error_text import clipped, fault
from data.schemes import arrow_values, files
from data.schemes.records import Faults, Record, check_fields
from data.schemes.spans import file_of

# Row groups in memory, and the most that one of them may hold there.
_GROUPS = 2
_MAX_GROUP = 1 << 30
# A column of nulls alone may have no other type: its rows are bad records.
_TEXTS = (pa.string(), pa.large_string(), pa.string_view(), pa.null())


class Rows:
  """The good rows of a path or glob; see `sources.open_source`."""

  def __init__(
    self,
    location: str,
    fields: Sequence[str],
    on_bad_record: str,
    all_fields: bool = False,
  ):
    self.name = name = f"parquet:{location}"
    self._paths = paths = tuple(files.find("parquet", location))
    self._fields = tuple(fields)
    self._all_fields = all_fields
    self._begin()
    faults = Faults(on_bad_record)
    # By file, the first row of each of its groups, and its rows.
    self._groups: list[list[int]] = []
    rows, self._ends = [], []
    for file, path in enumerate(paths):
      self._groups.append(_group_bounds(path, self._fields, all_fields))
      rows += self._scan(file, faults)
      self._ends.append(sum(map(len, rows)))
    self._rows = np.concatenate([*rows, np.zeros(0, np.int64)])
    faults.check(name, len(self._rows))
    self.skipped = faults.skipped
    self.fingerprint = files.digest_of([file_digest(p)[:32] for p in paths])

  def _begin(self) -> None:
    self._lock = threading.Lock()
    self._read = functools.lru_cache(_GROUPS)(
      lambda file, group: _read_group(
        self._paths[file], group, self._fields, self._all_fields
      )
    )

  def __getstate__(self) -> dict[str, Any]:
    return {
      k: v for k, v in self.__dict__.items() if k not in ("_lock", "_read")
    }

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._begin()

  def _scan(self, file: int, faults: Faults) -> Iterator[np.ndarray]:
    """The numbers of the good rows, group by group."""
    for group, first in enumerate(self._groups[file][:-1]):
      table = _read_group(
        self._paths[file], group, self._fields, self._all_fields
      )
      good = np.ones(len(table), bool)
      if not _is_sound(table, self._fields):
        for row in range(len(table)):
          try:
            self._record(table, row)
          except ValueError as error:
            good[row] = False
            faults.add(self._place(file, first + row), error)
      yield np.flatnonzero(good) + first

  def _record(self, table: pa.Table, row: int) -> Record:
    record = {}
    for field in table.column_names:
      cell, asked = table.column(field)[row], field in self._fields
      try:
        value = cell.as_py() if asked else arrow_values.value(cell)
      except UnicodeDecodeError as error:
        raise ValueError(
          f"is not UTF-8 in the column {field!r} ({error.reason})"
        ) from error
      if asked and value is None:
        raise ValueError(f"is null in the column {field!r}")
      record[field] = value
    return record

  def _place(self, file: int, row: int) -> str:
    return f"{self._paths[file]}: row {row + 1}"

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    file, row = file_of(self._ends, index), int(self._rows[index])
    bounds = self._groups[file]
    group = bisect.bisect_right(bounds, row) - 1
    # One thread at a time: two would read one group twice.
    with self._lock:
      table = self._read(file, group)
    return self._record(table, row - bounds[group])

  def locate(self, index: int) -> str:
    return self._place(file_of(self._ends, index), int(self._rows[index]))


def _group_bounds(
  path: str, fields: Sequence[str], all_fields: bool
) -> list[int]:
  """The first row of each group, and the number of rows, of a fit file."""
  try:
    with pq.ParquetFile(path) as file:
      schema, metadata = file.schema_arrow, file.metadata
      sizes = [
        metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
      ]
  except (pa.ArrowException, OSError) as error:
    raise _damaged(path, error) from error
  check_fields(path, fields, schema.names)
  for field in schema.names if all_fields else fields:
    if len(schema.get_all_field_indices(field)) > 1:
      raise ValueError(f"{path}: two columns are called {field!r}; rename one")
  for field in fields:
    kind = schema.field(field).type
    if pa.types.is_dictionary(kind):
      kind = kind.value_type
    if kind not in _TEXTS:
      raise ValueError(
        f"{path}: the column {field!r} holds {clipped(str(kind))}, not "
        "strings; name another or write it as strings"
      )
  return list(itertools.accumulate(sizes, initial=0))


def _read_group(
  path: str, group: int, fields: Sequence[str], all_fields: bool
) -> pa.Table:
  try:
    # A dictionary stays one: repeated, its texts may be of any size.
    with pq.ParquetFile(
      path, read_dictionary=list(fields), page_checksum_verification=True
    ) as file:
      metadata = file.metadata.row_group(group)
      columns = map(metadata.column, range(metadata.num_columns))
      size = sum(
        column.total_uncompressed_size
        for column in columns
        if all_fields or column.path_in_schema in fields
      )
      if size > _MAX_GROUP:
        raise ValueError(
          f"{path}: row group {group} holds {size} bytes, and at most "
          f"{_MAX_GROUP} are read at a time; write it with smaller row groups"
        )
      wanted = None if all_fields else list(fields)
      table = file.read_row_group(group, columns=wanted)
      # Dictionaries of one column, which its pages may each have, in one.
      return table.unify_dictionaries()
  except (pa.ArrowException, OSError) as error:
    raise _damaged(path, error) from error


def _is_sound(table: pa.Table, fields: Sequence[str]) -> bool:
  """Whether all texts of the fields are there, and all are UTF-8."""
  if any(table.column(field).null_count for field in fields):
    return False
  try:
    table.validate(full=True)
  except pa.ArrowInvalid:
    return False
  return True


def _damaged(path: str, error: Exception) -> Exception:
  if isinstance(error, OSError) and error.errno:
    return error
  return ValueError(
    f"{path}: damaged or cut short, or no Parquet file "
    f"({fault(error)}); make it again"
  )
