"""Records become ids; a source without a token is named, or passed over."""

import pytest

from data import sources
from data.store import encoding


def test_empty_source_is_named_or_skipped(write_jsonl, encode):
  good = {"source": "apple", "target": "b"}
  path = write_jsonl(good, b"bad", {"source": " \t", "target": "b"}, good)
  fields = ("source", "target")
  source = sources.open_source(
    f"jsonl:{path}", fields=fields, on_bad_record="skip"
  )
  with pytest.raises(
    ValueError,
    match=r"line 3: data\.source_field = 'source' is blank; fix it, or set",
  ):
    encode(source)
  pairs = encode(source, on_bad_record="skip")
  assert pairs.records.tolist() == [0, 2]
  counts = pairs.counts
  assert (counts.pairs, counts.skipped_records) == (2, 1)
  assert counts.empty_sources == 1
  only = sources.open_source(
    f"jsonl:{path}@all[1:2]", fields=fields, on_bad_record="skip"
  )
  with pytest.raises(ValueError, match="'source' is empty in all 1 records"):
    encode(only, on_bad_record="skip")


@pytest.mark.parametrize(
  ("records", "what"),
  [
    ([("a", "b"), ("", "b")], r"= 'source' is empty; fix it"),
    ([("a", "b"), ("\x00", "b")], r"knows \('\\x00'\); fix it"),
    (
      [("a", "b"), ("", "b"), (" ", "b")],
      r"is empty, as in 2 of the 3 records read together, of which 0 have an "
      r"empty data\.target_field = 'target': are the two fields swapped\?",
    ),
    (
      [("", ""), ("", ""), ("", "b")],
      r"as in 3 of the 3 records read together, of which 2 have an empty "
      r"data\.target_field = 'target'; fix it",
    ),
  ],
)
def test_empty_sources_are_told_from_swapped_fields(
  write_jsonl, encode, records, what
):
  path = write_jsonl(*({"source": s, "target": t} for s, t in records))
  source = sources.open_source(f"jsonl:{path}", fields=("source", "target"))
  with pytest.raises(ValueError, match=what):
    encode(source)


def test_a_source_that_is_quoted_is_bounded(write_jsonl, encode):
  path = write_jsonl({"source": "\x00" * 9999, "target": "b"})
  source = sources.open_source(f"jsonl:{path}", fields=("source", "target"))
  with pytest.raises(ValueError, match="holds nothing that") as caught:
    encode(source)
  assert len(str(caught.value)) < 500


def test_records_are_the_same_however_they_are_read(
  make_pairs, make_encoding, monkeypatch
):
  source, made = make_pairs(7).source, make_encoding()
  whole = dict(made.examples(source, range(1, 7)))
  assert list(whole) == [1, 2, 3, 4, 5, 6]
  monkeypatch.setattr(encoding, "_CHUNK", 2)
  for number, example in made.examples(source, range(1, 7)):
    assert example.source.tolist() == whole[number].source.tolist()
    assert example.target.tolist() == whole[number].target.tolist()
  assert whole[1].target.tolist() != whole[2].target.tolist()
