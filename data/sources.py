"""Sources: "scheme:location@split" -> records by number."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from data.io.digests import digest
from data.schemes import (
  arrayrecord,
  csv,
  dates,
  files,
  hf,
  jsonl,
  parquet,
  pydoc,
  text,
  tfds,
)
from data.schemes.file_extensions import suggest, uri_of
from data.schemes.records import Record, check_fields

# Schemes that read files, which have one split: all.
_FILES = {
  "arrayrecord": arrayrecord.JsonRecords,
  "csv": csv.open_files,
  "jsonl": jsonl.open_files,
  "parquet": parquet.Rows,
  "text": text.open_files,
}
# Schemes whose data sets have splits of their own.
_SETS = {"hf": hf.open_dataset, "tfds": tfds.open_dataset}
_BUILT_IN = {"dates": dates.records, "pydoc": pydoc.records}
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_SPLIT = re.compile(
  r"(?P<name>[A-Za-z_]\w*)(\[(?P<start>[^:\]]*):(?P<stop>[^:\]]*)\])?"
)
# A star after a colon is a glob's.
_WEIGHT = re.compile(r"([^:*@]*)\*")
_BOUND = re.compile(r"(-?\d+)(%?)")


@runtime_checkable
class Source(Protocol):
  """Records by number, the same ones in the same order at every opening."""

  @property
  def name(self) -> str:
    """The URI."""
    ...

  @property
  def fingerprint(self) -> str:
    """A digest of the records and their order."""
    ...

  @property
  def skipped(self) -> int:
    """Bad records of the file that were passed over."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Record: ...

  def locate(self, index: int) -> str:
    """Where record `index` stands, for a message: a file and a line."""
    ...


@dataclasses.dataclass(frozen=True)
class _Slice:
  """Records `start` to `stop - 1` of a source."""

  base: Source
  name: str
  start: int
  stop: int

  @property
  def fingerprint(self) -> str:
    return digest([self.base.fingerprint, str(self.start), str(self.stop)])

  @property
  def skipped(self) -> int:
    return self.base.skipped

  def __len__(self) -> int:
    return self.stop - self.start

  def __getitem__(self, index: int) -> Record:
    return self.base[self.start + _within(index, len(self))]

  def locate(self, index: int) -> str:
    return self.base.locate(self.start + _within(index, len(self)))


@dataclasses.dataclass(frozen=True)
class _BuiltIn:
  """Records that the code itself makes."""

  name: str
  records: Sequence[Record]
  fingerprint: str
  skipped: int = 0

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> Record:
    return self.records[_within(index, len(self))]

  def locate(self, index: int) -> str:
    return f"{self.name}: record {index}"


def open_source(
  uri: str,
  *,
  fields: Sequence[str],
  on_bad_record: str = "error",
  all_fields: bool = False,
) -> Source:
  """The records that `uri` names, each with the text of `fields`.

  `on_bad_record` is "error", which raises at the first malformed record with
  its line number, or "skip", which passes over and counts them. With
  `all_fields` a record also has its others, as `records.as_json` writes them.
  Raises ValueError (FileNotFoundError for a file) naming the thing and the
  remedy.
  """
  return sliced(open_whole(uri, fields, on_bad_record, all_fields), uri)


def open_whole(
  uri: str,
  fields: Sequence[str],
  on_bad_record: str,
  all_fields: bool = False,
) -> Source:
  """As `open_source`, but all of what `uri` names a slice of."""
  check_on_bad_record(on_bad_record)
  scheme, location, split = parse_uri(uri)
  name, _, _ = _parse_split(uri, split)
  if scheme in _FILES:
    if name != "all":
      raise ValueError(
        f"{uri}: a {scheme} file has the split 'all', not {name!r}; write "
        "@all, or a slice of it such as @all[:95%]"
      )
    try:
      return _FILES[scheme](location, fields, on_bad_record, all_fields)
    except ValueError as error:
      other = uri_of(location)
      if not other or other.startswith(f"{scheme}:"):
        raise
      raise ValueError(f"{error}; did you mean {other!r}?") from error
  if scheme in _SETS:
    return _SETS[scheme](location, name, fields, on_bad_record, all_fields)
  return _open_built_in(uri, scheme, name, fields)


def sliced(whole: Source, uri: str) -> Source:
  """The records of `whole` that `uri` names; raises as `open_source` does."""
  _, start, stop = _parse_split(uri, parse_uri(uri)[2])
  first, last = _bounds(uri, start, stop, len(whole))
  return _Slice(whole, uri, first, last)


def whole_uri(uri: str) -> str:
  """The URI without its slice."""
  scheme, location, split = parse_uri(uri)
  name, _, _ = _parse_split(uri, split)
  return ":".join(filter(None, (scheme, location))) + f"@{name}"


def files_of(uri: str) -> tuple[str, ...]:
  """The files that hold the records; none where a URI does not name files."""
  scheme, location, _ = parse_uri(uri)
  if scheme not in _FILES:
    return ()
  places = location.split("::") if scheme == "text" else [location]
  return tuple(
    path for place in places if place for path in files.find(scheme, place)
  )


def _open_built_in(
  uri: str, scheme: str, split: str, fields: Sequence[str]
) -> Source:
  records = _BUILT_IN[scheme](split)
  check_fields(uri, fields, list(records[0]))
  fingerprint = digest([r["source"] + "\0" + r["target"] for r in records])
  return _BuiltIn(f"{scheme}@{split}", records, fingerprint)


def parse_uri(uri: str) -> tuple[str, str, str]:
  """Scheme, location and split; raises ValueError for one that is unknown."""
  rest, at, split = uri.rpartition("@")
  rest, split = (rest, split) if at else (uri, "")
  scheme, colon, location = rest.partition(":")
  if scheme not in _schemes():
    raise ValueError(
      f"{uri!r}: {scheme!r} is no scheme; write scheme:location@split with one "
      f"of {', '.join(_schemes())}{suggest(uri, _schemes())}"
    )
  if scheme in _BUILT_IN and colon:
    raise ValueError(f"{uri}: {scheme} has no location; write {scheme}@train")
  if scheme not in _BUILT_IN and not location:
    raise ValueError(f"{uri}: nothing follows {scheme}:; write where it is")
  if not split and scheme in _FILES:
    split = "all"
  if not split:
    raise ValueError(f"{uri}: no split; write {rest}@train, for example")
  return scheme, location, split


def parse_mixture(text: str) -> dict[str, float]:
  """{uri: share} of "uri" or "0.7*uri,0.3*uri"; the shares add up to 1.

  Weights are positive, in any unit; of several URIs each has one. Commas
  divide, so no location has one. Raises ValueError naming the part.
  """
  parts = [_weighted(text, part.strip()) for part in text.split(",")]
  if len(parts) > 1 and any(weight is None for weight, _ in parts):
    raise ValueError(
      f"data.train = {text!r}: each of several sources needs a weight, its "
      "share of the rows: write 0.7*uri,0.3*uri (files that belong together "
      "are one glob; a path here has no comma)"
    )
  weights: dict[str, float] = {}
  for weight, uri in parts:
    parse_uri(uri)
    if uri in weights:
      raise ValueError(
        f"data.train = {text!r}: {uri} stands there twice; add up its weights"
      )
    weights[uri] = 1.0 if weight is None else weight
  total = math.fsum(weights.values())
  return {uri: weight / total for uri, weight in weights.items()}


def _weighted(text: str, part: str) -> tuple[float | None, str]:
  """The weight and the URI of a part of a mixture."""
  match = _WEIGHT.match(part)
  if not match:
    return None, part
  try:
    weight = float(match[1])
  except ValueError:
    weight = math.nan
  if not 1e-6 <= weight <= 1e6:
    raise ValueError(
      f"data.train = {text!r}: {match[1]!r} is no weight; write a number "
      "between 0.000001 and 1000000, as in 0.7*uri"
    )
  return weight, part[match.end() :].strip()


def parse_eval(text: str, bare: str = "valid") -> dict[str, str]:
  """{name: uri} of "name=uri,name=uri"; a bare uri is called `bare`."""
  sets: dict[str, str] = {}
  for part in filter(None, (part.strip() for part in text.split(","))):
    name, equals, uri = part.partition("=")
    # A path may hold an equals sign; a name is one word.
    if not (equals and _NAME.fullmatch(name)):
      name, uri = bare, part
    if name in sets:
      raise ValueError(
        f"{text!r}: two sets are called {name!r}; name each, as name=uri"
      )
    parse_uri(uri)
    sets[name] = uri
  return sets


def check_on_bad_record(value: str) -> None:
  """Raises ValueError unless `value` is "error" or "skip"."""
  if value not in ("error", "skip"):
    raise ValueError(f"data.on_bad_record = {value!r}: set it to error or skip")


def _schemes() -> tuple[str, ...]:
  return (*_FILES, *_SETS, *_BUILT_IN)


def _parse_split(uri: str, split: str) -> tuple[str, str, str]:
  match = _SPLIT.fullmatch(split)
  if not match:
    raise ValueError(
      f"{uri}: {split!r} is no split; write @train, @all[:95%] or "
      "@train[100:200] (and @all at the end where a path holds an @)"
    )
  return match["name"], match["start"] or "", match["stop"] or ""


def _bounds(uri: str, start: str, stop: str, size: int) -> tuple[int, int]:
  first = _bound(uri, start, size) if start else 0
  last = _bound(uri, stop, size) if stop else size
  if first >= last:
    raise ValueError(
      f"{uri}: records {first} to {last} of {size} are none; widen the slice"
    )
  return first, last


def _bound(uri: str, text: str, size: int) -> int:
  """A bound in records: "95%", "100", and from the end "-5%", "-100"."""
  match = _BOUND.fullmatch(text.strip())
  if not match:
    raise ValueError(
      f"{uri}: {text!r} is no bound of a slice; write whole numbers, "
      "as in [100:200], or whole percents, as in [:95%]"
    )
  number, limit = int(match[1]), 100 if match[2] else size
  if abs(number) > limit:
    raise ValueError(
      f"{uri}: {text} is out of range; there are {size} records, so write at "
      f"most {limit}{match[2]}"
    )
  # Rounded down, so that [:95%] and [95%:] share no record and lose none.
  number = number * size // 100 if match[2] and number >= 0 else number
  if match[2] and number < 0:
    number = -(-number * size // 100)
  return number + size if text.strip().startswith("-") else number


def _within(index: int, size: int) -> int:
  if not 0 <= index < size:
    raise IndexError(f"record {index} of {size}")
  return index
