"""Parquet: every row, by number; other columns and damaged files refused."""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.schemes import parquet
from data.sources import open_source

FIELDS = ("source", "target")


def _open(path, fields=FIELDS, **settings):
  return open_source(f"parquet:{path}", fields=fields, **settings)


@pytest.fixture
def write(tmp_path):
  def write(source, target=None, name="x.parquet", **settings) -> str:
    target = [f"t{i}" for i in range(len(source))] if target is None else target
    path = str(tmp_path / name)
    settings = {"row_group_size": 2} | settings
    pq.write_table(
      pa.table({"source": source, "target": target}), path, **settings
    )
    return path

  return write


@pytest.mark.parametrize(
  "kind",
  [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
  ],
)
@pytest.mark.parametrize("settings", [{}, {"use_dictionary": False}])
def test_every_row_of_every_type_of_text(write, kind, settings):
  texts = ["a", "é", "", "a", "\0", "e", "a"]
  array = pa.array(texts)
  array = (
    array.dictionary_encode()
    if pa.types.is_dictionary(kind)
    else array.cast(kind)
  )
  source = _open(write(array, **settings))
  for index in (6, 0, 3, 2, 5, 1, 4):
    assert source[index] == {"source": texts[index], "target": f"t{index}"}


def test_nulls_and_bad_bytes_are_named_or_skipped_and_counted(write):
  raw = pa.array([b"a", b"b", b"\xff", b"d", b"e"], pa.binary())
  bad = pa.StringArray.from_buffers(5, *raw.buffers()[1:])
  path = write(bad, ["1", None, "3", "4", "5"])
  with pytest.raises(ValueError, match=r"row 2 is null in the column 'target'"):
    _open(path)
  with pytest.raises(ValueError, match=r"row 3 is not UTF-8 in the column 's"):
    _open(path, ("source",))
  source = _open(path, on_bad_record="skip")
  assert (len(source), source.skipped) == (3, 2)
  assert [source[i]["source"] for i in range(3)] == ["a", "d", "e"]
  assert [source.locate(i)[-5:] for i in range(3)] == [
    "row 1",
    "row 4",
    "row 5",
  ]


def test_columns_that_are_no_texts_are_refused(write):
  path = write([1, 2], [b"a", b"b"])
  with pytest.raises(ValueError, match="column 'source' holds int64, not stri"):
    _open(path, on_bad_record="skip")
  with pytest.raises(ValueError, match="column 'target' holds binary, not str"):
    _open(path, ("target",))
  with pytest.raises(
    ValueError, match=r"no field 'x'; they have source, target"
  ):
    _open(path, ("x",))
  with pytest.raises(ValueError, match=r"no record; 2 are bad.* row 1 is null"):
    _open(write([None, None]), on_bad_record="skip")


@pytest.mark.parametrize(
  "damage",
  [
    lambda raw: raw[:-1],
    lambda raw: raw[: len(raw) // 2],
    lambda raw: b"",
    lambda raw: b"source,target\na,b\n" * 9,
    lambda raw: raw[:30] + bytes([raw[30] ^ 1]) + raw[31:],
    lambda raw: raw[:-60] + bytes(30) + raw[-30:],
    # Text that is still text: its page's checksum tells.
    lambda raw: raw.replace(b"aaa", b"aba", 1),
  ],
)
def test_a_damaged_file_is_refused_by_name(write, damage):
  path = pathlib.Path(
    write(["a" * 99] * 9, write_page_checksum=True, compression="none")
  )
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=r"x\.parquet: damaged or cut short"):
    _open(path, on_bad_record="skip")


def test_few_row_groups_are_held(write, monkeypatch):
  reads = []
  read = parquet._read_group
  source = _open(write([str(i) for i in range(20)]))
  monkeypatch.setattr(
    parquet, "_read_group", lambda *a: reads.append(a[1]) or read(*a)
  )
  assert [source[i]["source"] for i in range(20)] == [str(i) for i in range(20)]
  assert reads == list(range(10))
  assert source[0]["source"] == "0" and reads[-1] == 0
  monkeypatch.setattr(parquet, "_MAX_GROUP", 10)
  with pytest.raises(ValueError, match=r"row group 0 holds \d+ bytes.*smaller"):
    _open(write(["a" * 99]))


def test_a_repeated_text_takes_its_own_memory_only(write):
  # A megabyte ten thousand times: ten gigabytes, were it unfolded.
  text = pa.array(["x" * (1 << 20)])
  folded = pa.DictionaryArray.from_arrays(
    pa.array([0] * 10_000, pa.int32()), text
  )
  path = write(
    folded,
    row_group_size=10_000,
    dictionary_pagesize_limit=1 << 22,
    # Else the file itself would ask for the dictionary.
    store_schema=False,
  )
  before = pa.total_allocated_bytes()
  source = _open(path)
  assert len(source[9_999]["source"]) == 1 << 20
  assert pa.total_allocated_bytes() < before + (1 << 23)
