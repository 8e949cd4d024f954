"""Copied n-grams, counted one by one."""

import numpy as np

from train.evaluators import copying


def test_an_n_gram_counts_as_often_as_it_is_predicted():
  source = "a b c a".split()
  got = copying.found([source, []], ["a b a b x".split(), ["a"]])
  np.testing.assert_array_equal(got[1], [[4, 5], [0, 1]])
  np.testing.assert_array_equal(got[2], [[2, 4], [0, 0]])
  np.testing.assert_array_equal(got[3], [[0, 3], [0, 0]])
  np.testing.assert_array_equal(got[4], [[0, 2], [0, 0]])


def test_real_pairs_are_counted_as_one_would_by_hand(real_texts):
  sources, predictions = (
    [text.split() for text in side]
    for side in (real_texts.sources, real_texts.predictions)
  )
  got = copying.found(sources, predictions)
  for n in copying.ORDERS:
    for row, source, prediction in zip(
      got[n], sources, predictions, strict=True
    ):
      inside = f" {' '.join(source)} "
      ngrams = [
        f" {' '.join(prediction[i : i + n])} "
        for i in range(len(prediction) - n + 1)
      ]
      assert row.tolist() == [sum(g in inside for g in ngrams), len(ngrams)]
  assert got[1][:, 0].sum() > got[2][:, 0].sum() > got[4][:, 0].sum() > 0
