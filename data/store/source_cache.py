"""Remembered sources: what opening one found, while its files are unchanged.

Opening a source of files reads them whole: bad records are found, and a digest
tells it from others. Where files have the sizes and times that they had then,
all that is known, and a run that goes on reads none of them.
"""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

from data.io import atomic_write
from data.io.digests import text_digest
from data.schemes.records import Record
from data.sources import Source, files_of, open_whole, sliced, whole_uri

# Of what is written; another one is not read.
_FORMAT = 1
# Path, size and time of change of each file.
Stats = tuple[tuple[str, int, int], ...]


@dataclasses.dataclass(frozen=True)
class Remembered:
  """A source that is opened when one of its records is asked for."""

  name: str
  fields: tuple[str, ...]
  on_bad_record: str
  size: int
  skipped: int
  fingerprint: str

  def __len__(self) -> int:
    return self.size

  def __getitem__(self, index: int) -> Record:
    return self._source[index]

  def locate(self, index: int) -> str:
    return self._source.locate(index)

  @functools.cached_property
  def _source(self) -> Source:
    asked = (self.name, self.fields, self.on_bad_record)
    source = _opened(*asked, _stats(self.name))
    if source.fingerprint != self.fingerprint:
      raise ValueError(
        f"{self.name}: its files have changed, and kept their sizes and times; "
        "touch them and start again"
      )
    return source


def open_remembered(
  uri: str, *, fields: Sequence[str], on_bad_record: str, folder: Path | None
) -> Source:
  """`open_source`, but files that it knows from before are not read.

  Args:
    folder: where it is written down what was found, if there is such a folder;
      None: it is known in this process alone.
  """
  # Slices of a file are read, and remembered, as one.
  return sliced(
    _whole(whole_uri(uri), tuple(fields), on_bad_record, folder), uri
  )


def _whole(
  uri: str, fields: tuple[str, ...], on_bad_record: str, folder: Path | None
) -> Source:
  before, asked = _stats(uri), (uri, fields, on_bad_record)
  if folder is None:
    return _opened(*asked, before)
  name = f"source-{text_digest(repr((_FORMAT, *asked)))}.json"
  path = folder / name
  if known := _read(path, before):
    return Remembered(*asked, *known)
  source = _opened(*asked, before)
  if before and folder.is_dir() and _stats(uri) == before:
    facts = (len(source), source.skipped, source.fingerprint)
    # A store that may only be read serves as well, and more slowly.
    with contextlib.suppress(OSError), atomic_write.replacing(path) as partial:
      partial.write_text(json.dumps({"files": before, "found": facts}))
  return source


# The sets of a run, which it checks before it prepares them.
@functools.lru_cache(16)
def _opened(
  uri: str, fields: tuple[str, ...], on_bad_record: str, stats: Stats
) -> Source:
  del stats
  return open_whole(uri, fields, on_bad_record)


def _stats(uri: str) -> Stats:
  """None for a source that has no files of its own."""
  stats = []
  for path in files_of(uri):
    stat = os.stat(path)
    stats.append((os.path.abspath(path), stat.st_size, stat.st_mtime_ns))
  return tuple(stats)


def _read(path: Path, stats: Stats) -> tuple[int, int, str] | None:
  """What was found in files that were then as `stats` says."""
  if not stats or not path.is_file():
    return None
  try:
    values = json.loads(path.read_text())
    if values["files"] != [list(stat) for stat in stats]:
      return None
    size, skipped, fingerprint = values["found"]
  except (ValueError, KeyError, TypeError):
    return None
  if not (type(size) is type(skipped) is int and type(fingerprint) is str):
    return None
  return size, skipped, fingerprint
