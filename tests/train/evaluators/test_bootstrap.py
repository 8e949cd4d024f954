"""The bootstrap: what is resampled, and how often an interval is right."""

import numpy as np
import pytest

from train.evaluators import bootstrap
from train.evaluators.statistics import mean, ratio
from train.evaluators.translation import bleu_of_totals


def test_a_resample_is_the_metric_of_drawn_rows(monkeypatch):
  rows = np.array([1.0, 10.0, 100.0])
  one = {"sum": mean(rows)}
  values = bootstrap.resample(one, samples=200, seed=0)["sum"] * 3
  counts = np.stack([values // 10**i % 10 for i in range(3)], axis=1)
  assert np.all(counts.sum(axis=1) == 3)
  assert len({tuple(count) for count in counts}) == 10
  # However few are counted at once.
  monkeypatch.setattr(bootstrap, "_COUNTS", 7)
  again = bootstrap.resample(one, samples=200, seed=0)["sum"] * 3
  np.testing.assert_allclose(again, values)
  other = bootstrap.resample(one, samples=200, seed=1)["sum"] * 3
  assert not np.allclose(other, values)


def test_metrics_see_the_same_resamples():
  scores = np.random.default_rng(0).normal(size=50)
  values = bootstrap.resample(
    {"one": mean(scores), "other": mean(scores + 3.0)}, samples=100, seed=0
  )
  np.testing.assert_allclose(values["other"] - values["one"], 3.0)
  assert np.std(values["one"]) > 0.05


def test_metrics_of_different_examples_are_refused():
  scores = np.ones(4)
  with pytest.raises(ValueError, match="'b': 3"):
    bootstrap.intervals(
      {"a": mean(scores), "b": mean(scores[1:])}, samples=2, seed=0
    )
  assert bootstrap.intervals({}, samples=2, seed=0) == {}


def test_an_interval_is_the_middle_of_the_resamples():
  low, high = bootstrap.interval(np.arange(1001.0))
  assert (low, high) == (25.0, 975.0)


def coverage(draw, truth, size, sets):
  """The share of simulated sets whose interval holds the true value."""
  rng = np.random.default_rng(0)
  held = 0
  for i in range(sets):
    found = bootstrap.intervals(
      {"x": draw(rng, size)}, samples=400, seed=int(i)
    )
    low, high = found["x"]
    held += low <= truth <= high
  return held / sets


def test_intervals_of_a_mean_cover_the_truth():
  """Of scores as skewed as ROUGE-2, whose mean is 1/6."""
  share = coverage(
    lambda rng, size: mean(rng.beta(1.0, 5.0, size=size)), 1 / 6, 200, 1000
  )
  assert 0.93 <= share <= 0.97
  # The control: of the wrong value they do not.
  wrong = coverage(
    lambda rng, size: mean(rng.beta(1.0, 5.0, size=size)), 0.2, 200, 100
  )
  assert wrong < 0.5


def test_intervals_of_a_ratio_cover_the_truth():
  """Nats a token, where long examples have more nats a token."""

  def draw(rng, size):
    tokens = rng.integers(1, 40, size=size).astype(float)
    return ratio(tokens * (1 + tokens / 40) * rng.gamma(4, 0.25, size), tokens)

  tokens = np.arange(1.0, 40.0)
  truth = (tokens * (1 + tokens / 40)).sum() / tokens.sum()
  assert 0.93 <= coverage(draw, truth, 200, 600) <= 0.97


def test_intervals_of_bleu_cover_the_truth():
  """A corpus of sentences of 20 words, by chances of each order to match."""
  chances = np.array([0.6, 0.4, 0.3, 0.2])
  lengths = np.array([20.0, 19.0, 18.0, 17.0])

  def draw(rng, size):
    luck = rng.beta(8, 8, size=(size, 1)) * 2
    correct = rng.binomial(lengths.astype(int), np.minimum(luck * chances, 1))
    rows = np.concatenate(
      [np.full((size, 2), 20.0), correct, np.tile(lengths, (size, 1))], axis=1
    )
    return type(mean(np.ones(1)))(rows, bleu_of_totals)

  many = draw(np.random.default_rng(9), 200_000)
  assert 0.93 <= coverage(draw, many.value(), 100, 500) <= 0.97
