"""The loss of a complete set: one value an example, so sets can be compared."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from data.pipeline import EvalBatch


@dataclasses.dataclass(frozen=True)
class Losses:
  """Sums over each example's target tokens, in the order of the set."""

  nats: Float64[np.ndarray, " B"]
  weights: Float64[np.ndarray, " B"]
  correct: float

  def metrics(self) -> dict[str, float]:
    """`loss` in nats a target token, `accuracy` of the likeliest token."""
    weight = self.weights.sum()
    return {
      "loss": float(self.nats.sum() / weight),
      "accuracy": self.correct / float(weight),
    }


def measure(
  eval_step: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]],
  params: Any,
  batches: Iterable[EvalBatch],
) -> Losses:
  """Runs a set through `train.step.eval_step`; a padded row is no example."""
  nats, weights, correct = [], [], 0.0
  for batch in batches:
    rows = len(batch.pairs)
    # Float64 sums of float32 parts: the order of batches leaves no trace.
    out = {
      name: np.asarray(value, np.float64)
      for name, value in eval_step(params, batch.arrays).items()
    }
    nats.append(out["example_loss"][:rows])
    weights.append(out["example_weight"][:rows])
    correct += float(out["correct"])
  return Losses(np.concatenate(nats), np.concatenate(weights), correct)
