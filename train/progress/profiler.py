"""A trace of some steps of a run, for a profiler's viewer."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
from absl import logging

from train.errors import Refusal


@dataclasses.dataclass(frozen=True)
class Steps:
  """The steps from `first` to `last`, both of them among those traced."""

  first: int
  last: int


def parse_steps(text: str, total: int) -> Steps | None:
  """The steps of --profile=FIRST:LAST; None where it is empty.

  Raises:
    Refusal: it names no steps of a run of `total`.
  """
  if not text:
    return None
  match = re.fullmatch(r"(\d+):(\d+)", text)
  if match is None:
    raise Refusal(
      f"--profile={text}: write the first and the last step to trace, such as "
      "--profile=10:12"
    )
  first, last = int(match[1]), int(match[2])
  if not 1 <= first <= last <= total:
    raise Refusal(
      f"--profile={text}: steps are from 1 to train.steps={total}, and the "
      "first is no later than the last"
    )
  return Steps(first, last)


class Profiler:
  """Writes what devices and hosts do in some steps to a folder (xplane).

  The first step of a run that compiles is traced as any other.
  """

  def __init__(self, steps: Steps | None, folder: Path):
    self.steps = steps
    self.folder = folder
    self.tracing = False
    self.has_traced = False

  def begin(self, step: int) -> None:
    """Before a step is launched; a run may go on among those to trace."""
    if self.steps is None or self.tracing:
      return
    if self.steps.first <= step <= self.steps.last:
      jax.profiler.start_trace(str(self.folder))
      self.tracing = self.has_traced = True

  def end(self, step: int, results: Any) -> None:
    """After a step was launched; waits for the last one that is traced."""
    if self.tracing and self.steps and step == self.steps.last:
      jax.block_until_ready(results)
      self.close()

  def close(self) -> None:
    """Writes what was traced so far; warns where that is nothing."""
    if self.tracing:
      self.tracing = False
      jax.profiler.stop_trace()
      logging.info("the trace is in %s", self.folder)
    elif self.steps and not self.has_traced:
      logging.warning(
        "--profile=%d:%d: none of these steps was taken, so there is no trace",
        self.steps.first,
        self.steps.last,
      )
