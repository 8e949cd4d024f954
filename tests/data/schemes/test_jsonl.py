"""Malformed lines are named by number; the good ones are read by number."""

import pickle

import pytest

from data.sources import open_source

GOOD = {"source": "a", "target": "b", "extra": 1}


def _open(path, **settings):
  return open_source(f"jsonl:{path}", fields=("source", "target"), **settings)


@pytest.mark.parametrize(
  ("bad", "why"),
  [
    (b"{not json", "is not JSON"),
    (b"", "is not JSON"),
    (b"   ", "is not JSON"),
    (b'["source", "target"]', "is a list, not a JSON object"),
    (b"17", "is a int"),
    (b'{"source": "a"}', "has no field 'target'; its fields are: 'source'"),
    (b"{}", "has no field 'source'; its fields are: none"),
    (b'{"source": 3, "target": "b"}', "has a int in the field 'source'"),
    (b'{"source": null, "target": "b"}', "has a NoneType in the field"),
    (b'{"source": "\xff", "target": "b"}', "is not UTF-8"),
    (b'{"source": "\\ud800", "target": "b"}', "half of a surrogate"),
    (b"[" * 100_000, "is not JSON"),
    (b'{"source": "a", "target": "b"} {}', "is not JSON"),
  ],
)
def test_bad_line_is_named_or_skipped_and_counted(write_jsonl, bad, why):
  path = write_jsonl(GOOD, GOOD, bad, GOOD | {"source": "last"}, bad)
  with pytest.raises(ValueError, match=rf"line 3 .*{why}") as error:
    _open(path)
  assert path in str(error.value) and "on_bad_record=skip" in str(error.value)
  source = _open(path, on_bad_record="skip")
  assert (len(source), source.skipped) == (3, 2)
  assert source[2] == {"source": "last", "target": "b"}
  assert source.locate(2).endswith("line 4")


def test_field_that_no_record_has_is_an_error_even_when_skipping(write_jsonl):
  path = write_jsonl(GOOD, GOOD)
  with pytest.raises(ValueError, match=r"no record.*'article'.*'source'"):
    open_source(f"jsonl:{path}", fields=("article",), on_bad_record="skip")


def test_empty_and_missing_files(write_jsonl, tmp_path):
  with pytest.raises(ValueError, match="no record; it is empty"):
    _open(write_jsonl())
  with pytest.raises(FileNotFoundError, match="no such file"):
    _open(tmp_path / "absent.jsonl")
  with pytest.raises(ValueError, match="not a file"):
    _open(tmp_path)


def test_last_line_needs_no_newline_and_a_mark_may_come_first(tmp_path):
  path = tmp_path / "x.jsonl"
  line = '{"source": "é", "target": "b"}'
  path.write_bytes(f"\ufeff{line}\r\n{line}".encode())
  source = _open(path)
  assert len(source) == 2 and source[0] == source[1]
  assert source[0]["source"] == "é"


def test_fingerprint_is_of_the_content(write_jsonl):
  one = _open(write_jsonl(GOOD, name="one.jsonl"))
  same = _open(write_jsonl(GOOD, name="same.jsonl"))
  other = _open(write_jsonl(GOOD | {"target": "c"}, name="other.jsonl"))
  assert one.fingerprint == same.fingerprint != other.fingerprint


def test_source_travels_to_other_processes(write_jsonl):
  source = _open(write_jsonl(GOOD))
  assert source[0] == pickle.loads(pickle.dumps(source))[0]
