"""Extensions: what the end of a file's name tells of its scheme."""

import os

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
