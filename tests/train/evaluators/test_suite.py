"""A row of metrics, of results made by hand."""

import numpy as np

from train.evaluators import suite
from train.evaluators.loss import Losses
from train.evaluators.statistics import mean

LOSSES = Losses(
  np.array([1.0, 5.0]), np.array([1.0, 2.0]), np.array([1.0, 1.0])
)


def test_losses_are_of_tokens_and_scores_of_examples():
  scores = {"exact_match": mean(np.array([1.0, 0.0, 0.0, 0.0]))}
  assert suite.Result(LOSSES, scores, []).metrics() == {
    "loss": 2.0,
    "accuracy": 2 / 3,
    "exact_match": 0.25,
  }
  assert suite.Result(LOSSES, {}, []).metrics().keys() == {"loss", "accuracy"}


def test_each_value_has_an_interval():
  scores = {"exact_match": mean(np.array([1.0, 0.0, 0.0, 0.0]))}
  result = suite.Result(LOSSES, scores, [])
  ends = result.intervals(500, 0)
  # Of two examples either may be drawn twice.
  assert (ends["loss_low"], ends["loss_high"]) == (1.0, 2.5)
  assert (ends["accuracy_low"], ends["accuracy_high"]) == (0.5, 1.0)
  assert ends["exact_match_low"] == 0.0 and ends["exact_match_high"] == 0.75
  assert ends.keys() == {
    f"{name}_{end}" for name in result.metrics() for end in ("low", "high")
  }
