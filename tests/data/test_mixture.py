"""A mixture has every pair of its parts, numbered on, in one table."""

import numpy as np
import pytest

from data.examples import Tokens
from data.mixture import Mixture


def test_pairs_of_the_parts_follow_one_another(make_pairs):
  one, two = make_pairs(7), make_pairs(5)
  mixture = Mixture((one, two), (0.7, 0.3))
  assert len(mixture) == 12 and mixture.sizes == (7, 5)
  chosen = np.array([11, 0, 6, 7])
  parts = [(two, 4), (one, 0), (one, 6), (two, 0)]
  for pair, (part, index) in zip(chosen.tolist(), parts, strict=True):
    assert (mixture[pair].source == part[index].source).all()
    assert mixture.locate(pair) == part.source.locate(index)
  for side in ("source", "target"):
    lengths = getattr(mixture, f"{side}_lengths")(chosen).tolist()
    assert lengths == [len(getattr(mixture[i], side)) for i in chosen.tolist()]
  with pytest.raises(IndexError, match="pair 12 of 12"):
    mixture[12]


def test_the_fingerprint_is_of_the_parts_in_order(make_pairs):
  one, two = make_pairs(7), make_pairs(5)
  weights = (1.0, 1.0)
  prints = [
    Mixture((one, two), weights).fingerprint,
    Mixture((two, one), weights).fingerprint,
    Mixture((one,)).fingerprint,
  ]
  assert len(set(prints)) == 3 and prints[2] == one.fingerprint


def test_parts_that_were_encoded_differently_are_refused(make_pairs):
  tokens = Tokens(start=1, end=0, source_pad=0, target_pad=0)
  with pytest.raises(ValueError, match="encoded differently"):
    Mixture((make_pairs(7), make_pairs(5, tokens=tokens)), (1.0, 1.0))
  with pytest.raises(ValueError, match="1 sources and 2 weights"):
    Mixture((make_pairs(7),), (1.0, 1.0))
