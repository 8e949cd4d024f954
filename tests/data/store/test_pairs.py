"""Each pair is tokenised once; some of them, or other sources, are pairs."""

import numpy as np
import pytest

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
