"""The bootstrap: metrics of resampled examples, and intervals from them."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from train.evaluators.statistics import Statistics

# Of an interval, in hundredths of the resamples.
ENDS = (2.5, 97.5)
# Counts of examples that are held at once: 32 MiB.
_COUNTS = 1 << 22


def resample(
  statistics: Mapping[str, Statistics], *, samples: int, seed: int
) -> dict[str, Float64[np.ndarray, " R"]]:
  """Each metric's value in every one of `samples` resamples.

  A resample has as many examples as the set, drawn from it with replacement.
  All metrics, which are of the same examples, see the same resamples: what two
  of them differ by is resampled in pairs.

  Raises:
    ValueError: the metrics are of different numbers of examples.
  """
  if not statistics:
    return {}
  sizes = {name: len(s.rows) for name, s in statistics.items()}
  if len(set(sizes.values())) > 1:
    raise ValueError(f"statistics of different sets: {sizes} examples")
  table = np.concatenate([s.rows for s in statistics.values()], axis=1)
  totals = _resampled_totals(table, samples, np.random.default_rng(seed))
  values, start = {}, 0
  for name, of_metric in statistics.items():
    end = start + of_metric.rows.shape[1]
    values[name] = of_metric.of_totals(totals[:, start:end])
    start = end
  return values


def intervals(
  statistics: Mapping[str, Statistics], *, samples: int, seed: int
) -> dict[str, tuple[float, float]]:
  """Each metric's 95% interval by percentiles of its resamples."""
  return {
    name: interval(values)
    for name, values in resample(statistics, samples=samples, seed=seed).items()
  }


def interval(values: Float64[np.ndarray, " R"]) -> tuple[float, float]:
  """The ends of the middle 95% of `values`."""
  low, high = np.percentile(values, ENDS)
  return float(low), float(high)


def _resampled_totals(
  table: Float64[np.ndarray, "B columns"],
  samples: int,
  generator: np.random.Generator,
) -> Float64[np.ndarray, "R columns"]:
  """Sums of rows over each resample: how often each is drawn, times the row."""
  size = len(table)
  at_once = max(1, _COUNTS // size)
  totals = np.empty((samples, table.shape[1]))
  for start in range(0, samples, at_once):
    some = min(at_once, samples - start)
    drawn = generator.integers(size, size=(some, size))
    # One count of all resamples, each with numbers of its own.
    drawn += size * np.arange(some)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=some * size)
    counts = counts.reshape(some, size).astype(np.float64)
    totals[start : start + some] = counts @ table
  return totals
