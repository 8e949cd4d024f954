"""The loss of a complete set: one value an example, so sets can be compared."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from data.pipeline import EvalBatch
from train.evaluators.statistics import Statistics, ratio


@dataclasses.dataclass(frozen=True)
class Losses:
  """Sums over each example's target tokens, in the order of the set."""

  nats: Float64[np.ndarray, " B"]
  weights: Float64[np.ndarray, " B"]
  correct: Float64[np.ndarray, " B"]

  def statistics(self) -> dict[str, Statistics]:
    """`loss` in nats a target token, `accuracy` of the likeliest token."""
    return {
      "loss": ratio(self.nats, self.weights),
      "accuracy": ratio(self.correct, self.weights),
    }


def measure(
  eval_step: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]],
  params: Any,
  batches: Iterable[EvalBatch],
) -> Losses:
  """Runs a set through `train.step.eval_step`; a padded row is no example."""
  names = ("example_loss", "example_weight", "example_correct")
  parts: list[tuple] = []
  for batch in batches:
    rows = len(batch.pairs)
    # Float64 sums of float32 parts: the order of batches leaves no trace.
    out = eval_step(params, batch.arrays)
    parts.append(tuple(np.asarray(out[n], np.float64)[:rows] for n in names))
  return Losses(*map(np.concatenate, zip(*parts, strict=True)))
