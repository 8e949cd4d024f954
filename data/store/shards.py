"""Shards: files of ArrayRecord that hold pairs as ids, a record each.

A record is the number of the source's ids (little-endian uint32), the source's
ids and the target's, each id little-endian in 2 or 4 bytes, one width for all
of a store. The last record is no pair: it says whose the file is. ArrayRecord
keeps a hash of every record.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import (
  array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)

from data.examples import Example

# One record in a chunk: reading one decodes no other. Not compressed: zstd
# makes a chunk of a few hundred bytes a sixth smaller, takes five times as
# long to write, and its bytes change with its version.
_WRITER = "group_size:1,uncompressed"
# For single records in any order, in the thread that asks.
_READER = "readahead_buffer_size:0,max_parallelism:0"
_BUFFER = 1 << 15


def id_bytes(vocab_size: int) -> int:
  """The width of ids below `vocab_size`."""
  return 2 if vocab_size <= 1 << 16 else 4


def pack(example: Example, width: int) -> bytes:
  """The record of an example; raises OverflowError for an id too large."""
  ids = np.concatenate([example.source, example.target])
  if ids.min() < 0 or int(ids.max()) >> (8 * width):
    raise OverflowError(f"ids {ids.min()} to {ids.max()} in {width} bytes")
  return (
    len(example.source).to_bytes(4, "little")
    + ids.astype(f"<u{width}").tobytes()
  )


def unpack(record: bytes, lengths: Sequence[int], width: int) -> Example:
  """The example of a record; raises ValueError where lengths do not fit it."""
  split, whole = lengths[0], sum(lengths)
  if len(record) != 4 + width * whole or split != int.from_bytes(
    record[:4], "little"
  ):
    raise ValueError("its length is not that of the table")
  ids = np.frombuffer(record, f"<u{width}", offset=4).astype(np.int32)
  return Example(ids[:split], ids[split:])


def write(path: Path, records: Iterable[bytes], label: str) -> None:
  """A file of `records`; raises OSError where it cannot be written."""
  writer = array_record_module.ArrayRecordWriter(str(path), _WRITER)
  for record in records:
    _written(writer.write, record)
  _written(writer.write, label.encode())
  _written(writer.close)


def _written(action: Callable[..., None], *arguments: bytes) -> None:
  try:
    action(*arguments)
  except RuntimeError as error:
    raise OSError(str(error)) from error


class Shards:
  """Records of some files, numbered through; threads may share it.

  Files are opened as they are needed, and again by a process that it is sent
  to. ArrayRecordDataSource would do, but its time for a record grows with the
  shard (0.8.6: 0.15 ms at 65,536 records, where this takes 4 us).
  """

  def __init__(self, paths: Sequence[Path], sizes: Sequence[int]):
    self._paths = tuple(paths)
    self._stops = np.cumsum(sizes, dtype=np.int64)
    self._start()

  def _start(self) -> None:
    self._readers: list[Any] = [None] * len(self._paths)
    self._lock = threading.Lock()

  def __getstate__(self) -> dict:
    return {"_paths": self._paths, "_stops": self._stops}

  def __setstate__(self, state: dict) -> None:
    self.__dict__.update(state)
    self._start()

  def find(self, index: int) -> tuple[int, int]:
    """The number of the file that holds a record, and its number there."""
    shard = int(np.searchsorted(self._stops, index, side="right"))
    return shard, index - (int(self._stops[shard - 1]) if shard else 0)

  def __getitem__(self, index: int) -> bytes:
    """Raises RuntimeError where the bytes do not have their hash."""
    shard, place = self.find(index)
    reader = self._readers[shard] or self._open(shard)
    return reader.read(place, place + 1)[0]

  def _open(self, shard: int) -> Any:
    with self._lock:
      if self._readers[shard] is None:
        self._readers[shard] = _reader(self._paths[shard])
      return self._readers[shard]


def check(path: Path, pairs: int, label: str) -> None:
  """Raises ValueError where a file has other records or another label."""
  reader = _reader(path)
  records = reader.num_records()
  if records != pairs + 1:
    # One that is damaged at its end has none, and raises where it is closed.
    raise ValueError(f"{max(0, records - 1)} pairs instead of {pairs}")
  try:
    last = reader.read(pairs, records)[0]
    reader.close()
  except RuntimeError as error:
    raise ValueError(str(error)) from error
  if last != label.encode():
    raise ValueError("it is another's")


def _reader(path: Path) -> Any:
  return array_record_module.ArrayRecordReader(
    str(path), options=_READER, file_reader_buffer_size=_BUFFER
  )
