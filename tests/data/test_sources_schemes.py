"""What holds of every scheme of files, whatever the texts hold."""

import csv
import functools
import gzip
import itertools
import json
import pathlib
import pickle
import tempfile
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python import array_record_module
from hypothesis import given
from hypothesis import strategies as st

from data.sources import Source, open_source

FIELDS = ("source", "target")
# What has ended lines, cells or texts somewhere.
HOSTILE = st.one_of(
  st.text(
    st.sampled_from(' ab",\t;\r\n\0\x0b\x0c\x1c\x85\u2028\u2029\ufeff\\{}é😀'),
    max_size=30,
  ),
  st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
  st.integers(1, 200_000).map(lambda n: "long " * (n // 5)),
)
RECORDS = st.lists(
  st.fixed_dictionaries({"source": HOSTILE, "target": HOSTILE}),
  min_size=1,
  max_size=8,
)
Records = list[dict[str, str]]


def write_jsonl(path: str, records: Records) -> None:
  with open(path, "w", encoding="utf-8", newline="") as file:
    for i, record in enumerate(records):
      text = json.dumps(record, ensure_ascii=i % 2 == 0)
      file.write(text + ("\r\n" if i % 3 == 0 else "\n"))


def write_packed(path: str, records: Records) -> None:
  write_jsonl(path, records)
  raw = pathlib.Path(path).read_bytes()
  if path.endswith(".gz"):
    packed = gzip.compress(raw)
  else:
    packed = pa.compress(raw, codec="zstd", asbytes=True)
  pathlib.Path(path).write_bytes(packed)


def write_csv(path: str, records: Records) -> None:
  delimiter = "\t" if path.endswith(".tsv") else ","
  with open(path, "w", encoding="utf-8-sig", newline="") as file:
    writer = functools.partial(
      csv.writer, file, delimiter=delimiter, lineterminator="\r\n"
    )
    writer().writerow(["target", "n", "source"])
    for i, record in enumerate(records):
      # A lone carriage return is not quoted unless all is.
      every = i % 2 == 0 or "\r" in "".join(record.values())
      quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
      writer(quoting=quoting).writerow([record["target"], i, record["source"]])


def write_parquet(path: str, records: Records) -> None:
  columns = {"n": pa.array(range(len(records)), pa.int64())}
  columns |= {
    field: pa.array([r[field] for r in records], pa.string())
    for field in FIELDS
  }
  pq.write_table(pa.table(columns), path, row_group_size=3)


def write_arrayrecord(path: str, records: Records) -> None:
  writer = array_record_module.ArrayRecordWriter(path, "group_size:2")
  for record in records:
    writer.write(json.dumps(record).encode())
  writer.close()


def write_text(path: str, records: Records) -> None:
  for field in FIELDS:
    with open(f"{path}.{field}", "w", encoding="utf-8", newline="") as file:
      file.writelines(record[field] + "\n" for record in records)


# Endings of files, the pattern that finds them, and who writes them.
WRITERS: dict[str, tuple[str, Callable[[str, Records], None]]] = {
  "jsonl": (".jsonl", write_jsonl),
  "jsonl gz": (".jsonl.gz", write_packed),
  "jsonl zst": (".jsonl.zst", write_packed),
  "csv": (".csv", write_csv),
  "csv tsv": (".tsv", write_csv),
  "parquet": (".parquet", write_parquet),
  "arrayrecord": (".array_record", write_arrayrecord),
  "text": ("", write_text),
}


def uri_of(kind: str, stem: str) -> str:
  """The URI of files that begin so."""
  scheme, ending = kind.split()[0], WRITERS[kind][0]
  if scheme == "text":
    return f"text:{stem}.source::{stem}.target"
  return f"{scheme}:{stem}{ending}"


def write(kind: str, folder: str, name: str, records: Records) -> str:
  """Writes records into a file, or a pair; gives the URI."""
  ending, writer = WRITERS[kind]
  writer(f"{folder}/{name}{ending}", records)
  return uri_of(kind, f"{folder}/{name}")


def plain(records: Records) -> Records:
  """What the lines of a text can hold of the records."""

  def line(text: str) -> str:
    text = text.replace("\n", " ").rstrip("\r")
    return text.lstrip("\ufeff")

  return [{k: line(v) for k, v in record.items()} for record in records]


def _open(uri: str, **settings) -> Source:
  return open_source(uri, fields=FIELDS, **settings)


def _read(source: Source) -> Records:
  return [source[i] for i in range(len(source))]


@pytest.fixture(params=WRITERS)
def kind(request) -> str:
  return request.param


@pytest.fixture
def numbered(kind, tmp_path) -> Iterator[tuple[str, Records]]:
  """A glob of three files with 4, 1 and 7 records, and those."""
  records = [{"source": f"s {i}", "target": f"t {i}"} for i in range(12)]
  bounds = itertools.pairwise((0, 4, 5, 12))
  for name, (start, stop) in zip("abc", bounds, strict=True):
    write(kind, str(tmp_path), f"part-{name}", records[start:stop])
  yield uri_of(kind, f"{tmp_path}/part-*"), records


@pytest.mark.parametrize("kind", WRITERS)
@given(records=RECORDS, data=st.data())
def test_texts_come_back_in_any_order(kind, records, data):
  records = plain(records) if kind == "text" else records
  with tempfile.TemporaryDirectory() as folder:
    source = _open(write(kind, folder, "x", records))
    assert source.skipped == 0
    assert _read(source) == records
    index = data.draw(st.permutations(range(len(records))))
    assert [source[i] for i in index] == [records[i] for i in index]
    travelled = pickle.loads(pickle.dumps(source))
    assert [travelled[i] for i in index] == [records[i] for i in index]
    assert travelled.fingerprint == source.fingerprint


def test_files_of_a_glob_follow_one_another(numbered):
  uri, records = numbered
  source = _open(uri)
  assert _read(source) == records
  assert [source[i] for i in (11, 0, 4, 5, 3)] == [
    records[i] for i in (11, 0, 4, 5, 3)
  ]
  for index in (-1, 12):
    with pytest.raises(IndexError):
      source[index]
  assert _read(_open(f"{uri}@all[3:6]")) == records[3:6]
  again = pickle.loads(pickle.dumps(source))
  assert _read(again) == records


def test_a_place_names_the_file(numbered, kind):
  uri, _ = numbered
  source = _open(uri)
  first = {"csv": 2, "arrayrecord": 0}.get(kind.split()[0], 1)
  for index, (name, number) in {
    0: ("a", 0),
    3: ("a", 3),
    4: ("b", 0),
    5: ("c", 0),
    11: ("c", 6),
  }.items():
    place = source.locate(index)
    assert f"part-{name}" in place
    assert place.endswith(f" {first + number}")


def test_the_fingerprint_is_of_content_and_order(kind, tmp_path):
  records = [{"source": f"s {i}", "target": f"t {i}"} for i in range(4)]

  def fingerprint(folder: str, **parts: Records) -> str:
    (tmp_path / folder).mkdir()
    for name, part in parts.items():
      write(kind, f"{tmp_path}/{folder}", name, part)
    return _open(uri_of(kind, f"{tmp_path}/{folder}/*")).fingerprint

  one = fingerprint("1", a=records[:1], b=records[1:])
  assert one == fingerprint("2", c=records[:1], d=records[1:])
  others = {
    fingerprint("3", a=records[1:], b=records[:1]),
    fingerprint("4", a=records[:2], b=records[2:]),
    fingerprint("5", a=records[:1], b=[*records[1:3], records[0]]),
    fingerprint("6", a=records),
  }
  assert one not in others and len(others) == 4


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_packing_changes_no_fingerprint(tmp_path, ending):
  records = [{"source": "s", "target": "t"}]
  uris = [
    write(kind, str(tmp_path), "x", records)
    for kind in ("jsonl", f"jsonl {ending}")
  ]
  one, other = map(_open, uris)
  assert one.fingerprint == other.fingerprint


def test_a_glob_that_matches_nothing(kind, tmp_path):
  with pytest.raises(FileNotFoundError, match="no file matches"):
    _open(uri_of(kind, f"{tmp_path}/part-*"))


def test_files_without_records(kind, tmp_path):
  write(kind, str(tmp_path), "a", [])
  with pytest.raises(ValueError, match="no record; it is empty"):
    _open(uri_of(kind, f"{tmp_path}/*"))
  # One among others says nothing.
  write(kind, str(tmp_path), "b", [{"source": "s", "target": "t"}])
  source = _open(uri_of(kind, f"{tmp_path}/*"))
  assert len(source) == 1 and "b." in source.locate(0)
