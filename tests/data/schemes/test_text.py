"""Lines that belong together: as many on either side, and both of them text."""

import gzip

import pytest

from data.sources import open_source

FIELDS = ("source", "target")


@pytest.fixture
def write(tmp_path):
  """Writes a file for each side; gives the URI."""

  def write(source: bytes, target: bytes, ending: str = "") -> str:
    for name, raw in (("s", source), ("t", target)):
      raw = gzip.compress(raw) if ending == ".gz" else raw
      (tmp_path / (name + ending)).write_bytes(raw)
    return f"text:{tmp_path}/s{ending}::{tmp_path}/t{ending}"

  return write


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_lines_end_with_a_newline_and_nothing_else(write, ending):
  source = "\ufeffa\u2028b\r\n\n\ufeff\x85\rc\nlast\r"
  uri = write(source.encode(), b"1\n2\r\n3\n4\n", ending)
  source = open_source(uri, fields=FIELDS)
  assert [source[i]["source"] for i in range(4)] == [
    "a\u2028b",
    "",
    "\ufeff\x85\rc",
    "last\r",
  ]
  assert [source[i]["target"] for i in range(4)] == ["1", "2", "3", "4"]
  assert source.locate(1).endswith("line 2")


@pytest.mark.parametrize(
  ("lines", "counts"), [((3, 5), (3, 5)), ((5, 3), (5, 3)), ((0, 1), (0, 1))]
)
@pytest.mark.parametrize("choice", ["error", "skip"])
def test_other_counts_are_refused_with_both(write, lines, counts, choice):
  uri = write(b"a\n" * lines[0], b"b\n" * lines[1])
  with pytest.raises(ValueError) as error:
    open_source(uri, fields=FIELDS, on_bad_record=choice)
  assert f"s has {counts[0]} lines" in str(error.value)
  assert f"t {counts[1]}:" in str(error.value)


@pytest.mark.parametrize("side", [0, 1])
def test_bad_line_is_named_or_skipped_and_counted(write, side):
  texts = [b"a\nb\nc\n", b"1\n2\n3\n"]
  texts[side] = texts[side][:2] + b"\xff\n" + texts[side][4:]
  uri = write(*texts)
  with pytest.raises(ValueError, match=r"/s and .*/t: line 2 is not UTF-8"):
    open_source(uri, fields=FIELDS)
  source = open_source(uri, fields=FIELDS, on_bad_record="skip")
  assert (len(source), source.skipped) == (2, 1)
  assert source[1] == {"source": "c", "target": "3"}
  assert source.locate(1).endswith("line 3")


def test_fields_are_called_source_and_target(write):
  uri = write(b"a\n", b"b\n")
  assert open_source(uri, fields=("source",))[0] == {"source": "a"}
  with pytest.raises(ValueError, match="no field 'article'; they have source"):
    open_source(uri, fields=("article", "target"))


@pytest.mark.parametrize("location", ["a", "a::", "::b", "a::b::c"])
def test_two_files_are_named(location):
  with pytest.raises(ValueError, match="text:source_file::target_file"):
    open_source(f"text:{location}", fields=FIELDS)


def test_as_many_files_on_either_side(tmp_path):
  for name in ("s1", "s2", "t1"):
    (tmp_path / name).write_text("a\n")
  with pytest.raises(ValueError, match="2 source files and 1 target files"):
    open_source(f"text:{tmp_path}/s*::{tmp_path}/t*", fields=FIELDS)


def test_files_that_change_while_open_are_an_error(write):
  source = open_source(write(b"aa\n", b"b\n"), fields=FIELDS)
  write(b"\xff\xff\n", b"b\n")
  with pytest.raises(ValueError, match=r"line 1 is not UTF-8 .*have changed"):
    source[0]
