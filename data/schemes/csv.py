"""Tables of comma-separated values (RFC 4180), read by row.

The first row names the fields. A file called .tsv has tabs between its cells.
A quoted cell may hold delimiters, newlines and doubled quotes.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence

from data.io.error_text import fault
from data.schemes import files
from data.schemes.file_extensions import extension
from data.schemes.records import Record, check_fields, decode
from data.schemes.spans import Spans

# A cell may be as long as a line; the module's own limit is 128 KiB.
csv.field_size_limit(files.MAX_LINE)
# What is left of a quoted cell, from inside of it.
_CLOSING = re.compile(rb'(?:[^"]++|"")*+"')
# What may divide cells, for messages.
_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


class _Rows:
  """Each row a record, with the names of its file's first row."""

  def __init__(
    self, paths: Sequence[str], fields: Sequence[str], all_fields: bool
  ):
    self._paths = tuple(paths)
    self._fields = tuple(fields)
    self._all_fields = all_fields
    # By file: the number of cells, and the cell of each field.
    self._columns: dict[int, tuple[int, dict[str, int]]] = {}

  def split(
    self, file: int, lines: Iterable[files.Line]
  ) -> Iterator[files.Line]:
    rows = _join(lines, self._delimiter(file).encode())
    header = next(rows, None)
    if header is None:
      return
    path = self._paths[file]
    first = f"{path}: line 1 names the fields, and"
    try:
      text = decode(header.raw or b"").removeprefix("\ufeff")
    except ValueError as error:
      raise ValueError(f"{first} {error}; fix it") from error
    divided = self._divided(file, text)
    try:
      names = self._cells(file, text)
    except ValueError as error:
      remedy = divided or f"{error}; fix it"
      raise ValueError(f"{first} {remedy}") from error
    if divided and not {*self._fields} <= {*names}:
      raise ValueError(f"{first} {divided}")
    try:
      check_fields(path, self._fields, names)
    except ValueError as error:
      raise ValueError(f"{error}; line 1 names the fields") from error
    wanted = list(dict.fromkeys(names if self._all_fields else self._fields))
    for field in wanted:
      if names.count(field) > 1:
        raise ValueError(
          f"{path}: line 1 names two fields {field!r}; rename one"
        )
    self._columns[file] = len(names), {f: names.index(f) for f in wanted}
    yield from rows

  def parse(self, file: int, raw: bytes) -> Record:
    count, columns = self._columns[file]
    cells = self._cells(file, decode(raw))
    if len(cells) != count:
      raise ValueError(
        f"has {len(cells)} cells where the first row has {count}"
      )
    return {field: cells[column] for field, column in columns.items()}

  def _delimiter(self, file: int) -> str:
    return "\t" if extension(self._paths[file]) == ".tsv" else ","

  def _divided(self, file: int, header: str) -> str:
    """By what else the first row seems divided, and the remedy; or nothing."""
    own = self._delimiter(file)
    counts = {header.count(sign): sign for sign in _DELIMITERS}
    most = counts[max(counts)]
    if "\0" in header:
      return "holds zero bytes, as UTF-16 does: convert the file to UTF-8"
    if own in header or most not in header:
      return ""
    remedy = {
      "\t": "give the file a name that ends in .tsv",
      ",": "give the file a name that ends in .csv",
    }.get(most, "convert the file")
    names = _DELIMITERS[most], _DELIMITERS[own]
    return f"has {names[0]}s where {names[1]}s divide cells: {remedy}"

  def _cells(self, file: int, row: str) -> list[str]:
    reader = csv.reader([row], delimiter=self._delimiter(file), strict=True)
    try:
      return next(reader, [])
    except csv.Error as error:
      raise ValueError(f"is no row of RFC 4180 ({fault(error)})") from error


def open_files(
  location: str,
  fields: Sequence[str],
  on_bad_record: str,
  all_fields: bool = False,
) -> Spans:
  """The files of a path or glob; raises as `sources.open_source` says."""
  contents = files.Bytes(files.find("csv", location))
  form = _Rows(contents.paths, fields, all_fields)
  return Spans(f"csv:{location}", contents, form, on_bad_record)


def _join(
  lines: Iterable[files.Line], delimiter: bytes
) -> Iterator[files.Line]:
  """Rows: lines, joined where a newline is quoted."""
  pending: list[bytes] = []
  first, size, is_open = None, 0, False
  for line in lines:
    first = first or line
    size += line.size
    if line.raw is None or size > files.MAX_LINE:
      # Too long to hold: whether a quote is open is no longer known.
      yield first._replace(size=size, raw=None)
      pending, first, size, is_open = [], None, 0, False
      continue
    pending.append(line.raw)
    is_open = _ends_quoted(line.raw, delimiter, is_open)
    if not is_open:
      yield first._replace(size=size, raw=b"".join(pending))
      pending, first, size = [], None, 0
  if first is not None:
    # A quote that was never closed: the row's parser refuses it.
    yield first._replace(size=size, raw=b"".join(pending))


def _ends_quoted(line: bytes, delimiter: bytes, is_open: bool) -> bool:
  """Whether a line ends inside a quoted cell; `is_open`: it begins in one."""
  if b'"' not in line:
    return is_open
  place = 0
  while True:
    if is_open or line.startswith(b'"', place):
      closing = _CLOSING.match(line, place if is_open else place + 1)
      if closing is None:
        return True
      place, is_open = closing.end(), False
    place = line.find(delimiter, place) + 1
    if not place:
      return False
