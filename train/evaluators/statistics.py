"""Statistics of examples, whose sums over a set give a metric of the set."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

Totals = Float64[np.ndarray, "*sets columns"]
Values = Float64[np.ndarray, "*sets"]


@dataclasses.dataclass(frozen=True)
class Statistics:
  """What a metric needs to know of each example, a row each.

  A set, or a resample of it, is measured by the sum of its rows alone.

  Attributes:
    of_totals: the metric of sums of rows, which may have leading dimensions.
    signature: what decides the metric's value, for whoever cites it.
  """

  rows: Float64[np.ndarray, "B columns"]
  of_totals: Callable[[Totals], Values]
  signature: str = ""

  def value(self) -> float:
    """The metric of the whole set."""
    # Column by column: numpy sums one in pairs, which rounds less.
    totals = np.array([column.sum() for column in self.rows.T])
    return float(self.of_totals(totals))


def ratio(
  parts: Float64[np.ndarray, " B"],
  wholes: Float64[np.ndarray, " B"],
  signature: str = "",
) -> Statistics:
  """The sum of `parts` over that of `wholes`; 0 where these are 0."""
  return Statistics(np.stack([parts, wholes], axis=1), quotient, signature)


def mean(scores: Float64[np.ndarray, " B"], signature: str = "") -> Statistics:
  """The mean of a score of each example."""
  return ratio(scores, np.ones(len(scores)), signature)


def quotient(totals: Totals) -> Values:
  """The first column over the second; 0 where that is 0."""
  parts, wholes = totals[..., 0], totals[..., 1]
  return np.where(wholes == 0, 0.0, parts / np.where(wholes == 0, 1.0, wholes))
