"""Records that are pieces of files: found by place, named by line."""

import pytest

from data.schemes import files, spans
from data.sources import open_source


class Couples:
  """Two lines are a record, whose first one is its text."""

  def split(self, file, lines):
    lines = list(lines)
    for one, two in zip(lines[::2], lines[1::2], strict=True):
      raw = one.raw and two.raw and one.raw + two.raw
      yield one._replace(size=one.size + two.size, raw=raw)

  def parse(self, file, raw):
    text = raw.decode().splitlines()[0]
    if not text:
      raise ValueError("is blank")
    return {"text": f"{text} of {file}"}


@pytest.fixture
def couples(tmp_path):
  def make(*texts, on_bad_record="skip"):
    paths = [str(tmp_path / str(number)) for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
      with open(path, "w") as file:
        file.write(text)
    return spans.Spans("set", files.Bytes(paths), Couples(), on_bad_record)

  return make


def test_pieces_of_many_lines_and_files_are_found(couples, tmp_path):
  # The second file holds none.
  found = couples("a\n1\n\n2\nb\n3\n", "", "long\n4\n")
  assert (len(found), found.skipped) == (3, 1)
  texts = [found[index]["text"] for index in (2, 0, 1)]
  assert texts == ["long of 2", "a of 0", "b of 0"]
  assert [found.locate(index) for index in range(3)] == [
    f"{tmp_path}/0: line 1",
    f"{tmp_path}/0: line 5",
    f"{tmp_path}/2: line 1",
  ]
  with pytest.raises(ValueError, match="/0: line 3 is blank; fix it, or set"):
    couples("a\n1\n\n2\n", on_bad_record="error")


def test_a_piece_that_is_too_long_is_a_bad_record(couples, monkeypatch):
  monkeypatch.setattr(files, "MAX_LINE", 4)
  found = couples("a\n1\n" + "b" * 9 + "\n2\n")
  assert (len(found), found.skipped) == (1, 1)
  with pytest.raises(ValueError, match="line 1 has more than 4 bytes"):
    couples("b" * 9 + "\n2\n", on_bad_record="error")


def _open_jsonl(path):
  return open_source(f"jsonl:{path}", fields=("source",))


def test_file_that_changes_while_open_is_an_error(write_jsonl):
  source = _open_jsonl(write_jsonl({"source": "a"}))
  write_jsonl(b"x" * 60)
  with pytest.raises(ValueError, match=r"line 1 .*has changed"):
    source[0]
