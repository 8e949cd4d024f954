"""What reading the source is worth: true sources against permuted ones."""

import dataclasses

from train.evaluators import bootstrap
from train.evaluators.statistics import Statistics


@dataclasses.dataclass(frozen=True)
class Gain:
  """A difference of metrics and its 95% bootstrap interval."""

  value: float
  low: float
  high: float


def gain(
  better: Statistics, worse: Statistics, *, samples: int, seed: int
) -> Gain:
  """The metric of `better` minus that of `worse`, resampled by examples.

  Args:
    better, worse: of the same examples, which are resampled in pairs.
    samples: resamples of the bootstrap.
  """
  resampled = bootstrap.resample(
    {"better": better, "worse": worse}, samples=samples, seed=seed
  )
  low, high = bootstrap.interval(resampled["better"] - resampled["worse"])
  return Gain(better.value() - worse.value(), low, high)
