"""The manifest of a prepared set: what it was made of, and its files."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.io.digests import digest, file_digest
from data.io.error_text import DAMAGE, fault
from data.sources import Source
from data.store.counts import Counts
from data.store.encoding import Encoding

FORMAT = 1
NAME = "manifest.json"
LENGTHS, RECORDS = "lengths.npy", "records.npy"


class Damaged(ValueError):
  """A prepared set is not what its manifest says."""


def damaged(path: Path, what: str) -> Damaged:
  """The error about a file of a prepared set."""
  return Damaged(
    f"{path}: {what}; remove the folder {path.parent} and run again, which "
    "prepares it anew"
  )


@dataclasses.dataclass(frozen=True)
class File:
  """Size and checksum of a file."""

  bytes: int
  sha256: str

  @classmethod
  def of(cls, path: Path) -> "File":
    return cls(path.stat().st_size, file_digest(path))


@dataclasses.dataclass(frozen=True)
class Shard:
  """Pairs of a shard, and the checksum of their records, end to end."""

  pairs: int
  ids: str


@dataclasses.dataclass(frozen=True)
class Manifest:
  """A prepared set as manifest.json describes it.

  Attributes:
    uri: of the source that was prepared; another may name the same records.
    facts: all that decides the ids.
    id_bytes: the width of an id in the shards.
    files: by name, all but manifest.json.
  """

  uri: str
  facts: Mapping[str, Any]
  counts: Counts
  id_bytes: int
  shards: tuple[Shard, ...]
  files: Mapping[str, File]

  @property
  def fingerprint(self) -> str:
    """Of the pairs: ArrayRecord may write them with other bytes one day."""
    tables = [self.files[name].sha256 for name in (LENGTHS, RECORDS)]
    ids = [shard.ids for shard in self.shards]
    return digest([canonical(self.facts), *tables, *ids])

  @property
  def shard_names(self) -> list[str]:
    return [shard_name(i, len(self.shards)) for i in range(len(self.shards))]

  def to_json(self) -> str:
    values = dataclasses.asdict(self)
    values["digest"] = digest([canonical(values)])
    return json.dumps(values, indent=1) + "\n"


def facts(source: Source, encoding: Encoding) -> dict[str, Any]:
  """All that decides the ids of a set."""
  return {
    "format": FORMAT,
    "source": source.fingerprint,
    "records": len(source),
    **encoding.facts,
  }


def key(facts: Mapping[str, Any]) -> str:
  """The name of the folder of what has these facts."""
  return digest([canonical(facts)])


def shard_name(index: int, count: int) -> str:
  return f"shard-{index:05d}-of-{count:05d}.array_record"


def label(key: str, name: str) -> str:
  """What the file of a shard says at its end."""
  return f"{key}/{name}"


def read(folder: Path) -> Manifest:
  """The manifest of a folder; raises Damaged."""
  path = folder / NAME
  try:
    values = dict(json.loads(path.read_bytes()))
    written = values.pop("digest")
    manifest = Manifest(
      uri=values["uri"],
      facts=values["facts"],
      counts=Counts(**values["counts"]),
      id_bytes=int(values["id_bytes"]),
      shards=tuple(Shard(**shard) for shard in values["shards"]),
      files={name: File(**file) for name, file in values["files"].items()},
    )
    whole = written == digest([canonical(values)])
  except FileNotFoundError as error:
    raise damaged(path, "this file is missing") from error
  # Whatever JSON of another form leads to.
  except DAMAGE as error:
    raise damaged(path, f"it cannot be read ({fault(error)})") from error
  names = {*manifest.shard_names, LENGTHS, RECORDS}
  if (
    not whole or set(manifest.files) != names or manifest.id_bytes not in (2, 4)
  ):
    raise damaged(path, "it is damaged")
  if folder.name != key(manifest.facts):
    raise damaged(path, f"it is of {key(manifest.facts)}, not of this folder")
  if sum(shard.pairs for shard in manifest.shards) != manifest.counts.pairs:
    raise damaged(path, "its shards have other pairs than it counts")
  return manifest


def canonical(values: Mapping[str, Any]) -> str:
  return json.dumps(values, sort_keys=True, separators=(",", ":"))
