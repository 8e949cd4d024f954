"""Statistics: what sums of rows give."""

import numpy as np

from train.evaluators import statistics


def test_a_mean_and_a_ratio():
  scores = np.array([1.0, 0.0, 0.5, 0.5])
  assert statistics.mean(scores).value() == 0.5
  parts, wholes = np.array([1.0, 2.0]), np.array([4.0, 2.0])
  # Of the sums: the mean of the two ratios is another number.
  assert statistics.ratio(parts, wholes).value() == 0.5
  assert statistics.ratio(parts, np.zeros(2)).value() == 0.0


def test_many_totals_are_measured_at_once():
  totals = np.array([[[1.0, 2.0], [3.0, 0.0]], [[5.0, 5.0], [0.0, 1.0]]])
  np.testing.assert_array_equal(
    statistics.quotient(totals), [[0.5, 0.0], [1.0, 0.0]]
  )


def test_a_mean_is_rounded_as_that_of_numpy(seed):
  scores = np.random.default_rng(seed).uniform(size=1000)
  assert statistics.mean(scores).value() == float(np.mean(scores))
