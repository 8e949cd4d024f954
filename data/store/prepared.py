"""Prepared pairs: ids in a folder, each pair found by number.

A folder holds shards of ids (data/store/shards.py), a table of lengths (int32
[N, 2]: tokens of source and target), one of records (int64 [N]) and a manifest.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int64

from data.examples import Example, Tokens
from data.io.error_text import fault
from data.sources import Source
from data.store import manifest, shards
from data.store.manifest import LENGTHS, RECORDS, File, damaged
from data.store.pairs import Pairs


class PreparedPairs(Pairs):
  """The pairs of a folder that `open_prepared` has checked.

  Tables are mapped, files opened as they are needed: what a process holds does
  not grow with the set, and another to which it is sent opens them itself.
  """

  def __init__(self, folder: Path, source: Source):
    self.folder, self.source = folder, source
    known = manifest.read(folder)
    self.tokens = Tokens(**known.facts["tokens"])
    self.counts = known.counts
    self.fingerprint = known.fingerprint
    self.bytes = sum(file.bytes for file in known.files.values())
    self._width = known.id_bytes
    self._paths = [folder / name for name in known.shard_names]
    self._shards = shards.Shards(self._paths, [s.pairs for s in known.shards])
    self._map()

  def _map(self) -> None:
    pairs = self.counts.pairs
    self.records = _table(self.folder / RECORDS, np.dtype("<i8"), (pairs,))
    self._lengths = _table(self.folder / LENGTHS, np.dtype("<i4"), (pairs, 2))

  def __getstate__(self) -> dict:
    mapped = ("records", "_lengths")
    return {k: v for k, v in self.__dict__.items() if k not in mapped}

  def __setstate__(self, state: dict) -> None:
    vars(self).update(state)
    self._map()

  def __getitem__(self, index: int) -> Example:
    """Raises Damaged where the file does not hold what was written."""
    index = int(index)
    if not 0 <= index < len(self):
      raise IndexError(f"pair {index} of {len(self)}")
    try:
      record = self._shards[index]
      return shards.unpack(record, self._lengths[index].tolist(), self._width)
    except (RuntimeError, ValueError) as error:
      shard, place = self._shards.find(index)
      what = f"record {place} cannot be read ({fault(error)})"
      raise damaged(self._paths[shard], what) from error

  def source_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    return self._lengths[pairs, 0].astype(np.int64)

  def target_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    return self._lengths[pairs, 1].astype(np.int64)


def open_prepared(folder: Path, source: Source) -> PreparedPairs:
  """The pairs of a finished folder, which was prepared from `source`.

  Checks every file's size, the number of its records, and the tables whole;
  a damaged record is found when it is read. Raises Damaged, a ValueError that
  names the file.
  """
  known = manifest.read(folder)
  if known.facts["source"] != source.fingerprint:
    raise ValueError(f"{folder} was not prepared from {source.name}")
  _check_sizes(folder, known)
  for name, shard in zip(known.shard_names, known.shards, strict=True):
    path = folder / name
    try:
      shards.check(path, shard.pairs, manifest.label(folder.name, name))
    except ValueError as error:
      raise damaged(
        path, f"it does not fit the manifest: {fault(error)}"
      ) from error
  for name in (LENGTHS, RECORDS):
    _check_sum(folder / name, known.files[name])
  return PreparedPairs(folder, source)


def verify(folder: Path) -> None:
  """Reads every byte of a finished folder; raises Damaged naming the file."""
  known = manifest.read(folder)
  _check_sizes(folder, known)
  for name, file in known.files.items():
    _check_sum(folder / name, file)


def _check_sizes(folder: Path, known: manifest.Manifest) -> None:
  for name, file in known.files.items():
    path = folder / name
    if not path.is_file():
      raise damaged(path, "this file is missing")
    if (size := path.stat().st_size) != file.bytes:
      raise damaged(path, f"{size} bytes where the manifest has {file.bytes}")


def _check_sum(path: Path, file: File) -> None:
  if File.of(path) != file:
    raise damaged(path, "it does not have the checksum of the manifest")


def _table(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
  try:
    table = np.load(path, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError) as error:
    raise damaged(path, f"it cannot be read ({fault(error)})") from error
  if table.dtype != dtype or table.shape != shape:
    raise damaged(path, f"{table.dtype} {table.shape}, not {dtype} {shape}")
  return np.asarray(table)
