"""What reading the source is worth: true sources against permuted ones."""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int64


@dataclasses.dataclass(frozen=True)
class Gain:
  """A difference of means and its 95% bootstrap interval."""

  value: float
  low: float
  high: float

  def __str__(self) -> str:
    return f"{self.value:.3f} (95% {self.low:.3f} to {self.high:.3f})"


def derangement(size: int, seed: int) -> Int64[np.ndarray, " B"]:
  """A permutation of range(size) that leaves nothing in its place.

  It is one cycle through all examples in random order.

  Raises:
    ValueError: fewer than two examples.
  """
  if size < 2:
    raise ValueError(
      f"{size} example: permuting sources takes at least two; set "
      "eval.permute_sources to False"
    )
  cycle = np.random.default_rng(seed).permutation(size)
  other = np.empty(size, np.int64)
  other[cycle] = np.roll(cycle, -1)
  return other


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
