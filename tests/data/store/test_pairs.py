"""Each pair is tokenised once, truncated and counted; bad ones are named."""

import numpy as np
import pytest

from data import sources
from data.examples import Tokens


def test_pairs_are_those_of_the_source(make_pairs, wordpiece, bpe):
  pairs = make_pairs(30)
  assert len(pairs) == 30
  for index in (0, 7, 29):
    record = pairs.record(index)
    assert record["target"].endswith(str(index))
    source = wordpiece.encode_batch([record["source"]])[0]
    target = bpe.encode_batch([record["target"]])[0]
    assert pairs[index].source.tolist() == source
    assert pairs[index].target.tolist() == [*target, 0]
  every = np.arange(30)
  lengths = [len(pairs[i].source) for i in range(30)]
  assert pairs.source_lengths(every).tolist() == lengths
  lengths = [len(pairs[i].target) for i in range(30)]
  assert pairs.target_lengths(every).tolist() == lengths


def test_every_pair_is_tokenised_once(make_pairs, wordpiece, monkeypatch):
  seen = []
  encode = type(wordpiece).encode_batch

  def counting(self, texts):
    seen.extend(texts if self is wordpiece else ())
    return encode(self, texts)

  monkeypatch.setattr(type(wordpiece), "encode_batch", counting)
  pairs = make_pairs(20)
  for index in range(20):
    assert len(pairs[index].source) and len(pairs[index].source)
  assert len(seen) == len(set(seen)) == 20


def test_truncations_are_counted_by_side(make_pairs, wordpiece):
  whole = make_pairs(20)
  assert whole.counts.truncated_sources == whole.counts.truncated_targets == 0
  cut = make_pairs(20, max_source_length=7, max_target_length=4)
  every = np.arange(20)
  over = (whole.source_lengths(every) > 7).sum()
  assert cut.counts.truncated_sources == over > 0
  over = (whole.target_lengths(every) > 4).sum()
  assert cut.counts.truncated_targets == over > 0
  assert cut.source_lengths(every).max() == 7
  for index in range(20):
    # What the encoder's tokenizer puts at the end stays there.
    assert cut[index].source[-1] == wordpiece.suffix[0]
    ended = cut[index].target[-1] == 0
    assert ended == (whole.target_lengths(every[index : index + 1])[0] <= 4)


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


def test_fingerprint_is_of_ids_and_tokens(make_pairs):
  tokens = Tokens(start=1, end=0, source_pad=0, target_pad=0)
  prints = {
    make_pairs(9).fingerprint,
    make_pairs(9).fingerprint,
    make_pairs(9, tokens=tokens).fingerprint,
    make_pairs(9, max_source_length=6).fingerprint,
    make_pairs(8).fingerprint,
  }
  assert len(prints) == 4


def test_taken_pairs_are_the_same_pairs(make_pairs):
  pairs = make_pairs(20)
  chosen = np.array([7, 0, 19])
  taken = pairs.take(chosen)
  assert len(taken) == 3
  for place, index in enumerate(chosen.tolist()):
    assert (taken[place].source == pairs[index].source).all()
    assert (taken[place].target == pairs[index].target).all()
    assert taken.record(place) == pairs.record(index)
  assert taken.fingerprint != pairs.fingerprint
  assert taken.fingerprint != pairs.take(chosen[::-1].copy()).fingerprint


def test_permuted_sources_are_all_anothers(make_pairs):
  pairs = make_pairs(25)
  permuted = pairs.permute_sources(3)
  texts = [tuple(pairs[i].source) for i in range(25)]
  moved = [tuple(permuted[i].source) for i in range(25)]
  assert sorted(moved) == sorted(texts)
  assert not any(a == b for a, b in zip(texts, moved, strict=True))
  for index in range(25):
    assert (permuted[index].target == pairs[index].target).all()
  assert permuted.record(4) == pairs.record(4)
  assert permuted.fingerprint != pairs.fingerprint
  again = pairs.permute_sources(3)
  assert [tuple(again[i].source) for i in range(25)] == moved
  every = np.arange(25)
  assert permuted.source_lengths(every).tolist() == [len(ids) for ids in moved]
  with pytest.raises(ValueError, match="1 pairs"):
    make_pairs(1).permute_sources(3)
