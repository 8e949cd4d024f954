"""Files of JSON objects, one a line, read by number."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from data.schemes import files
from data.schemes.records import Record, from_json
from data.schemes.spans import Spans


@dataclasses.dataclass(frozen=True)
class _Lines:
  """Each line a record."""

  fields: tuple[str, ...]
  all_fields: bool

  def split(
    self, file: int, lines: Iterable[files.Line]
  ) -> Iterator[files.Line]:
    del file
    return iter(lines)

  def parse(self, file: int, raw: bytes) -> Record:
    del file
    return from_json(raw, self.fields, self.all_fields)


def open_files(
  location: str,
  fields: Sequence[str],
  on_bad_record: str,
  all_fields: bool = False,
) -> Spans:
  """The files of a path or glob; raises as `sources.open_source` says."""
  contents = files.Bytes(files.find("jsonl", location))
  form = _Lines(tuple(fields), all_fields)
  return Spans(f"jsonl:{location}", contents, form, on_bad_record)
