"""Preparing: a source is tokenised once, into a folder that runs share.

The folder of a set is named by what decides its ids, and appears when it is
complete. Until then its shards lie in `<name>.partial`, each with its counts
beside it: whoever goes on makes those that are missing. Every file is written
under another name, and its bytes are the same whoever wrote it.
"""

import dataclasses
import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tqdm
from absl import logging

from data.examples import Example
from data.io.atomic_write import STORE, replacing, sync
from data.io.file_lock import locked
from data.sources import Source
from data.store import manifest, prepared, shards, worker_processes
from data.store.counts import Counts, measure
from data.store.encoding import Encoding
from data.store.manifest import LENGTHS, RECORDS, File, Manifest, Shard
from data.store.pairs import check_some
from data.store.prepared import PreparedPairs

# Records of a shard: few enough for a kill to cost little and for all cores to
# have one; twice as many, and so on, where a set would have over 256 of them,
# for a reader has all of them open.
_RECORDS, _SHARDS = 1 << 13, 256


def prepare_set(
  source: Source,
  encoding: Encoding,
  store: Path,
  *,
  workers: int = 0,
  show: bool = False,
) -> PreparedPairs:
  """The pairs of `source`, from the folder `store`, made where it lacks them.

  Several processes may ask for the same: one works, the others wait. Killed
  and called again, it goes on.

  Args:
    workers: processes that tokenise; 0: one a core. A set of a single shard is
      done in this one.
    show: a progress bar, on a terminal.

  Raises:
    ValueError: a bad record, if that is an error; a damaged store.
    OSError: something cannot be written, and what is complete stays.
    Unreadable: nor can the source be read.
  """
  facts = manifest.facts(source, encoding)
  folder = store / manifest.key(facts)
  if not folder.exists():
    store.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock")
    with locked(lock, lambda holder: _waiting(source.name, folder, holder)):
      if not folder.exists():
        _notice(store, facts, source.name)
        size = _shard_records(len(source))
        work = Work(source, encoding, _partial(folder), folder.name, size)
        _make(work, folder, workers, show)
  return prepared.open_prepared(folder, source)


def _shard_records(records: int) -> int:
  size = _RECORDS
  while size * _SHARDS < records:
    size *= 2
  return size


class Unreadable(RuntimeError):
  """The source could not be read; never taken for a store without room."""


@dataclasses.dataclass(frozen=True)
class Part:
  """What is known of a finished shard, its rows of the tables aside."""

  counts: Counts
  file: File
  shard: Shard


@dataclasses.dataclass(frozen=True)
class Work:
  """What is to be prepared, and the folder where it is written."""

  source: Source
  encoding: Encoding
  folder: Path
  key: str
  shard_records: int

  @property
  def shards(self) -> int:
    return -(-len(self.source) // self.shard_records)

  @property
  def id_bytes(self) -> int:
    one, other = self.encoding.source_tokenizer, self.encoding.target_tokenizer
    return shards.id_bytes(max(one.vocab_size, other.vocab_size))

  def records(self, index: int) -> range:
    """The records of a shard."""
    first = index * self.shard_records
    return range(first, min(first + self.shard_records, len(self.source)))

  def path(self, index: int) -> Path:
    return self.folder / manifest.shard_name(index, self.shards)

  def part(self, index: int) -> Path:
    """The file with a shard's counts and its rows of the tables."""
    return self.path(index).with_suffix(".part")

  def __call__(self, index: int) -> None:
    """Makes a shard, unless it is there and whole."""
    path, part = self.path(index), _read_part(self.part(index))
    if not (part and path.exists() and File.of(path) == part.file):
      self._make(index)

  def _examples(self, records: range) -> Iterator[tuple[int, Example]]:
    try:
      yield from self.encoding.examples(self.source, records)
    except OSError as error:
      raise Unreadable(f"{self.source.name}: {error}") from error

  def _make(self, index: int) -> None:
    numbers: list[int] = []
    rows: list[tuple[int, int, bool, bool]] = []
    ids, width = hashlib.sha256(), self.id_bytes

    def packed() -> Iterator[bytes]:
      for number, example in self._examples(records):
        numbers.append(number)
        rows.append(measure(example))
        record = shards.pack(example, width)
        ids.update(record)
        yield record

    records = self.records(index)
    path, part = self.path(index), self.part(index)
    with replacing(path, STORE) as partial:
      shards.write(partial, packed(), manifest.label(self.key, path.name))
    table = np.array(rows, np.int64).reshape(-1, 4)
    facts = Part(
      Counts.of(
        table,
        records=len(records),
        empty_target=self.encoding.empty_target,
      ),
      File.of(path),
      Shard(len(rows), ids.hexdigest()),
    )
    with replacing(part, STORE) as partial, open(partial, "wb") as file:
      np.savez(
        file,
        facts=np.array(json.dumps(dataclasses.asdict(facts))),
        lengths=table[:, :2].astype("<i4"),
        records=np.array(numbers, "<i8"),
      )


def _make(work: Work, folder: Path, workers: int, show: bool) -> None:
  work.folder.mkdir(exist_ok=True)
  for left in work.folder.glob("*.writing-*"):
    left.unlink()
  if not (work.folder / manifest.NAME).exists():
    try:
      _make_shards(work, workers, show)
      _finish(work)
    except ValueError:
      # A bad record: what is made of a source that is not fixed is waste.
      shutil.rmtree(work.folder, ignore_errors=True)
      raise
  known = {manifest.NAME, *(work.path(i).name for i in range(work.shards))}
  for path in work.folder.iterdir():
    if path.name not in known | {LENGTHS, RECORDS}:
      path.unlink()
  # What a failing machine forgets of the names before is found missing.
  sync(work.folder)
  work.folder.rename(folder)


def _make_shards(work: Work, workers: int, show: bool) -> None:
  records = len(work.source)
  processes = max(1, min(workers or worker_processes.cores(), work.shards))
  logging.info(
    "preparing %s: %d records, by %d processes, in %s",
    *(work.source.name, records, processes, work.folder),
  )
  hidden = not (show and sys.stderr.isatty())
  with tqdm.tqdm(total=records, unit="record", disable=hidden) as bar:
    for index in worker_processes.in_order(work, work.shards, processes):
      bar.update(len(work.records(index)))


def _finish(work: Work) -> None:
  """The tables and the manifest, of the parts of all shards."""
  parts = []
  for index in range(work.shards):
    if not (part := _read_part(work.part(index))):
      raise OSError(f"{work.part(index)} is gone; run again, and it goes on")
    parts.append(part)
  pairs = sum(part.shard.pairs for part in parts)
  check_some(pairs, work.source, work.encoding.source_field)
  for name, dtype, shape in (
    (LENGTHS, "<i4", (pairs, 2)),
    (RECORDS, "<i8", (pairs,)),
  ):
    _write_table(work, name, dtype, shape)
  tables = {n: File.of(work.folder / n) for n in (LENGTHS, RECORDS)}
  files = {work.path(i).name: part.file for i, part in enumerate(parts)}
  counts = [part.counts for part in parts]
  text = Manifest(
    uri=work.source.name,
    facts=manifest.facts(work.source, work.encoding),
    counts=Counts.total(counts, skipped_records=work.source.skipped),
    id_bytes=work.id_bytes,
    shards=tuple(part.shard for part in parts),
    files=files | tables,
  ).to_json()
  with replacing(work.folder / manifest.NAME, STORE) as partial:
    partial.write_text(text, encoding="utf-8")


def _write_table(
  work: Work, name: str, dtype: str, shape: tuple[int, ...]
) -> None:
  """A .npy file of the parts end to end, of which one at a time is held."""
  header = {"descr": dtype, "fortran_order": False, "shape": shape}
  with (
    replacing(work.folder / name, STORE) as partial,
    open(partial, "wb") as file,
  ):
    np.lib.format.write_array_header_1_0(file, header)
    for index in range(work.shards):
      with np.load(work.part(index), allow_pickle=False) as part:
        file.write(part[Path(name).stem].tobytes())


def _read_part(path: Path) -> Part | None:
  """A part as it was written; None where it is missing or damaged."""
  try:
    # np.load would leave a file open that it refuses.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as part:
      facts = json.loads(str(part["facts"]))
      known = Part(
        Counts(**facts["counts"]),
        File(**facts["file"]),
        Shard(**facts["shard"]),
      )
      sizes = {len(part["lengths"]), len(part["records"])}
      return known if sizes == {known.shard.pairs} else None
  except OSError:
    return None
  # Whatever np.load, zipfile and JSON make of damaged bytes.
  except (ValueError, TypeError, LookupError, EOFError, RuntimeError):
    return None
  except zipfile.BadZipFile:
    return None


def _waiting(uri: str, folder: Path, holder: str) -> str:
  done = len(list(_partial(folder).glob("*.part")))
  return (
    f"{uri}: waiting for {holder}, which prepares {folder} and has done {done} "
    "shards"
  )


def _partial(folder: Path) -> Path:
  return folder.with_name(f"{folder.name}.partial")


def _notice(store: Path, facts: dict[str, Any], uri: str) -> None:
  """Says that another form of the same source is there."""
  watched = {
    "source": "text",
    "source_tokenizer": "source tokenizer",
    "target_tokenizer": "target tokenizer",
  }
  for path in sorted(store.glob(f"*/{manifest.NAME}")):
    try:
      known = manifest.read(path.parent)
    except manifest.Damaged:
      continue
    changed = [w for n, w in watched.items() if known.facts.get(n) != facts[n]]
    if known.uri == uri and changed:
      logging.info(
        "%s was prepared of another %s in %s; that stays, and it is prepared "
        "anew",
        *(uri, " and ".join(changed), path.parent),
      )
