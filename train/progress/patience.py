"""Patience: how long a run goes on while its best metric does not improve."""

import dataclasses
import math
from pathlib import Path

from train import validate
from train.config import Config
from train.processes import agreement
from train.workdir.metrics_file import METRICS_FILE, read_rows


@dataclasses.dataclass(frozen=True)
class Patience:
  """The rule by which a run ends early, read from the rows it has written.

  Attributes:
    metric: what shall improve; `mode` is "min" or "max".
    evaluations: so many may pass without it; 0: any number.
    folder: of the run, whose metrics file has a row for each evaluation.
  """

  metric: str
  mode: str
  evaluations: int
  folder: Path

  def is_spent(self, step: int) -> bool:
    """Whether the run ends at `step`, whose evaluation is the latest.

    All processes call it, and all get the same.
    """
    if not self.evaluations:
      return False
    return bool(
      agreement.on_chief(
        f"reading {self.folder / METRICS_FILE}", lambda: self._is_spent(step)
      )
    )

  def explain(self, step: int) -> str:
    """Why a run ended at `step`, as the end of a sentence; empty: it did not.

    Only the first process may call it.
    """
    if not (self.evaluations and self._is_spent(step)):
      return ""
    values = self._values(step)
    best = self._best(values)
    told = f"since step {best} ({values[best]:.4f})" if best else "ever"
    return (
      f"{self.metric} has not improved {told}, in train.patience_evaluations="
      f"{self.evaluations}; raise it, or set it to 0, to go on"
    )

  def _is_spent(self, step: int) -> bool:
    values = self._values(step)
    best = self._best(values)
    since = [s for s in values if best is None or s > best]
    return len(since) >= self.evaluations

  def _values(self, last: int) -> dict[int, float]:
    """The metric by step, of the evaluations until `last`."""
    path = self.folder / METRICS_FILE
    rows = read_rows(path) if path.exists() else []
    found = {
      row["step"]: row[self.metric]
      for row in rows
      if row["step"] <= last and self.metric in row
    }
    # JSON has null for what was not finite.
    return {k: math.nan if v is None else float(v) for k, v in found.items()}

  def _best(self, values: dict[int, float]) -> int | None:
    """The step with the best value, of equal ones the first; None: none has."""
    sign = 1 if self.mode == "max" else -1
    known = [step for step in values if not math.isnan(values[step])]
    return max(known, key=lambda step: sign * values[step], default=None)


def configured(config: Config, folder: Path) -> Patience:
  """That of a run in `folder`."""
  return Patience(
    metric=validate.best_metric(validate.flatten(config)),
    mode=config.train.best_mode,
    evaluations=config.train.patience_evaluations,
    folder=folder,
  )
