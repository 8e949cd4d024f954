"""Extensions: what the end of a file's name tells of its scheme."""

import difflib
import os
from collections.abc import Sequence

_LINES = {".csv": "csv", ".jsonl": "jsonl", ".tsv": "csv"}
_BINARY = {".arrayrecord": "arrayrecord", ".parquet": "parquet"}
_PACKED = (".gz", ".zst")
# The extensions of files that are named without a scheme, for messages.
EXTENSIONS = (".csv", ".jsonl", ".parquet", ".tsv")


def extension(path: str) -> str:
  """The last extension, in lower case, before .gz or .zst."""
  stem, end = os.path.splitext(path)
  if end.lower() in _PACKED:
    end = os.path.splitext(stem)[1]
  return end.lower()


def uri_of(path: str) -> str:
  """The URI of a file by its extension; empty where that tells no scheme."""
  end = extension(path)
  scheme = _LINES.get(end, "")
  if not scheme and not path.lower().endswith(_PACKED):
    scheme = _BINARY.get(end, "")
  if not scheme:
    return ""
  # What follows the last @ would be taken for a split.
  return f"{scheme}:{path}{'@all' if '@' in path else ''}"


def suggest(uri: str, schemes: Sequence[str]) -> str:
  """What a URI of no scheme is likely to mean, as the end of a sentence."""
  rest, split = uri, ""
  if "@" in uri:
    rest, at, split = uri.rpartition("@")
    split = at + split
  scheme, colon, location = rest.partition(":")
  meant = uri_of(scheme)
  if colon:
    near = difflib.get_close_matches(scheme, schemes, n=1)
    meant = f"{near[0]}:{location}" if near else ""
  return f"; did you mean {meant + split!r}?" if meant else ""
