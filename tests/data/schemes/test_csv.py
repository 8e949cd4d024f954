"""Rows of a table: bad ones are named by line, the good ones read by place."""

import pytest

from data.schemes import files
from data.sources import open_source


def _open(path, fields=("source", "target"), **settings):
  return open_source(f"csv:{path}", fields=fields, **settings)


@pytest.fixture
def write(tmp_path):
  def write(raw: bytes, name: str = "x.csv") -> str:
    path = tmp_path / name
    path.write_bytes(raw)
    return str(path)

  return write


GOOD = b'a,"b\n""b"""\n'


@pytest.mark.parametrize(
  ("bad", "why"),
  [
    (b"a\n", "has 1 cells where the first row has 2"),
    (b"a,b,c\n", "has 3 cells"),
    (b"\n", "has 0 cells"),
    (b"\r\n", "has 0 cells"),
    (b'"a\n\n",b,c\n', "has 3 cells"),
    (b'"a"b,c\n', "is no row of RFC 4180"),
    (b'"a" "b\n', "is no row of RFC 4180"),
    (b"a\rb,c\n", "is no row of RFC 4180"),
    (b"a,\xff\n", "is not UTF-8"),
  ],
)
def test_bad_row_is_named_or_skipped_and_counted(write, bad, why):
  # The first row is line 1, each good one two lines.
  path = write(b"source,target\n" + GOOD * 2 + bad + GOOD + b"last,t")
  with pytest.raises(ValueError, match=rf"line 6 {why}") as error:
    _open(path)
  assert path in str(error.value) and "on_bad_record=skip" in str(error.value)
  source = _open(path, on_bad_record="skip")
  assert (len(source), source.skipped) == (4, 1)
  assert source[2] == {"source": "a", "target": 'b\n"b"'}
  assert source[3] == {"source": "last", "target": "t"}
  assert source.locate(3).endswith(f"line {8 + bad.count(bytes([10]))}")


def test_a_quote_that_is_never_closed(write):
  path = write(b'source,target\na,b\nc,"d\ne,f\n')
  with pytest.raises(ValueError, match=r"line 3 is no row of RFC 4180"):
    _open(path)
  source = _open(path, on_bad_record="skip")
  assert (len(source), source.skipped) == (1, 1)


def test_quotes_inside_of_cells_are_their_own(write):
  path = write(b'source,target\n5" or 6",b\n"a"",""b",c""\n')
  source = _open(path)
  assert [source[i] for i in range(2)] == [
    {"source": '5" or 6"', "target": "b"},
    {"source": 'a","b', "target": 'c""'},
  ]


def test_the_first_row_names_the_fields(write):
  assert _open(write(b'x,"tar\nget",source\n1,2,3\n'), ("tar\nget",))[0] == {
    "tar\nget": "2"
  }
  with pytest.raises(
    ValueError, match=r"no field 'target'; they have a, sourc"
  ):
    _open(write(b"a,source\n1,2\n"))
  with pytest.raises(ValueError, match="line 1 names two fields 'source'"):
    _open(write(b"source,source,target\n1,2,3\n"))
  with pytest.raises(ValueError, match="line 1 names the fields, and is not U"):
    _open(write(b"source,target\xff\n1,2\n"))
  with pytest.raises(ValueError, match="no record; it is empty"):
    _open(write(b"source,target\n"))


def test_tabs_divide_what_is_called_so(write):
  raw = b"source\ttarget\na,a\tb\n"
  for name in ("x.tsv", "y.tsv"):
    assert _open(write(raw, name))[0] == {"source": "a,a", "target": "b"}
  assert len(_open(write(raw, "x.TSV"))) == 1
  with pytest.raises(ValueError, match="and has tabs where commas divide"):
    _open(write(raw, "x.txt"))


@pytest.mark.parametrize(
  ("name", "raw", "what"),
  [
    (
      "x.csv",
      b"source\ttarget\n",
      "has tabs where .* a name that ends in .tsv",
    ),
    ("x.csv", b"source;target\n", "has semicolons where commas .* convert"),
    ("x.csv", b'"source";"target"\n', "has semicolons where commas divide"),
    ("x.csv", b"\xef\xbb\xbfsource;target\n", "has semicolons where commas"),
    ("x.csv", b"a|source|target;\n", "has bars where commas divide cells"),
    ("x.tsv", b"source,target\n", "has commas where tabs .* that ends in .csv"),
    ("x.csv", "source,target\n".encode("utf-16"), "is UTF-16, and must be"),
    ("x.csv", "source,target\n".encode("utf-16-le"), "as UTF-16 does: conv"),
    ("x.csv", b"Rome,Paris\n", "have Rome, Paris .*; line 1 names the fields"),
    ("x.csv", b"source,goal;target\n", "no field 'target'"),
  ],
)
def test_a_table_of_another_form_is_named(write, name, raw, what):
  path = write(raw + b"a,b\n", name)
  with pytest.raises(ValueError, match=what) as caught:
    _open(path)
  assert str(caught.value).startswith(path)


def test_one_column_may_have_any_name(write):
  assert _open(write(b"a;b\n1;2\n"), ("a;b",))[0] == {"a;b": "1;2"}


def test_lines_of_utf_16_are_named(write):
  path = write('{"source": "a"}\n'.encode("utf-16"), "x.jsonl")
  with pytest.raises(ValueError, match="line 1 is UTF-16, and must be UTF-8"):
    open_source(f"jsonl:{path}", fields=("source",))


def test_a_row_that_is_too_long_is_passed_over(write, monkeypatch):
  monkeypatch.setattr(files, "MAX_LINE", 16)
  long = b'a,"bbbb\nbbbbb\nbbbb\n",c\n'
  path = write(b"source,target\na,b\n" + b'a,"' + b"b" * 99 + b'"\nc,d\n')
  source = _open(path, on_bad_record="skip")
  assert [source[i]["source"] for i in range(2)] == ["a", "c"]
  with pytest.raises(ValueError, match="line 3 has more than 16 bytes"):
    _open(write(b"source,target\na,b\n" + long))
