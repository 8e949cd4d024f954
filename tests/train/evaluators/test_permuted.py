"""The comparison with permuted sources."""

import numpy as np

from train.evaluators import permuted
from train.evaluators.statistics import ratio


def test_the_interval_covers_the_gain_and_shrinks_with_the_spread():
  weights = np.full(200, 4.0)
  noise = np.random.default_rng(0).normal(size=200)
  zero = ratio(np.zeros(200), weights)
  sure = permuted.gain(
    ratio(np.full(200, 8.0), weights), zero, samples=300, seed=0
  )
  assert sure.value == sure.low == sure.high == 2.0
  wide = permuted.gain(ratio(8.0 + noise, weights), zero, samples=300, seed=0)
  assert wide.low < wide.value < wide.high
  # 1.96 standard errors of a mean of 200, a quarter of it a token.
  np.testing.assert_allclose(
    wide.high - wide.low, 2 * 1.96 * noise.std() / 200**0.5 / 4, rtol=0.2
  )


def test_pairs_are_resampled_together():
  weights = np.ones(100)
  spread = np.random.default_rng(1).normal(size=100) * 50
  paired = permuted.gain(
    ratio(spread + 1.0, weights), ratio(spread, weights), samples=200, seed=0
  )
  np.testing.assert_allclose([paired.low, paired.high], 1.0, atol=1e-9)
