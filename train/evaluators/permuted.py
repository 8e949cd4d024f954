"""What reading the source is worth: true sources against permuted ones."""

import dataclasses

import numpy as np
from jaxtyping import Float64


@dataclasses.dataclass(frozen=True)
class Gain:
  """A difference of means and its 95% bootstrap interval."""

  value: float
  low: float
  high: float


def gain(
  better: Float64[np.ndarray, " B"],
  worse: Float64[np.ndarray, " B"],
  weights: Float64[np.ndarray, " B"],
  *,
  samples: int,
  seed: int,
) -> Gain:
  """The mean of `better - worse` over all weight, resampled by examples.

  Args:
    better, worse: sums over an example, such as nats.
    weights: an example's weight, such as target tokens.
    samples: resamples of the paired bootstrap.
  """
  generator = np.random.default_rng(seed)
  total = better - worse
  means = np.empty(samples)
  for i in range(samples):
    rows = generator.integers(len(total), size=len(total))
    means[i] = total[rows].sum() / weights[rows].sum()
  low, high = np.percentile(means, [2.5, 97.5])
  value = total.sum() / weights.sum()
  return Gain(float(value), float(low), float(high))
