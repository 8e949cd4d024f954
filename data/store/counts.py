"""Counts: how many records became pairs, and what became of the others."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64

from data.examples import Example


@dataclasses.dataclass(frozen=True)
class Counts:
  """What became of a source's records, for a report."""

  pairs: int
  skipped_records: int
  empty_sources: int
  empty_targets: int
  truncated_sources: int
  truncated_targets: int

  @classmethod
  def of(
    cls,
    table: Int64[np.ndarray, "N 4"],
    *,
    records: int,
    empty_target: int = 1,
  ) -> "Counts":
    """Of the `measure`s of the examples that `records` records gave.

    `empty_target` is the number of tokens of a target without text.
    """
    empty = (table[:, 1] == empty_target) & (table[:, 3] == 0)
    return cls(
      pairs=len(table),
      skipped_records=0,
      empty_sources=records - len(table),
      empty_targets=int(empty.sum()),
      truncated_sources=int(table[:, 2].sum()),
      truncated_targets=int(table[:, 3].sum()),
    )

  @classmethod
  def total(
    cls, parts: Iterable["Counts"], *, skipped_records: int
  ) -> "Counts":
    """Of parts of a source, which itself passed over bad records."""
    columns = zip(*map(dataclasses.astuple, parts), strict=True)
    sums = cls(*(sum(column) for column in columns))
    return dataclasses.replace(sums, skipped_records=skipped_records)


def measure(example: Example) -> tuple[int, int, bool, bool]:
  """Tokens of source and target, and which of them is truncated."""
  return (
    len(example.source),
    len(example.target),
    example.truncated_source,
    example.truncated_target,
  )
