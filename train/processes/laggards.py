"""Laggards: processes that stay at a step, while others have begun later ones.

Their computation hangs perhaps, or they read data from a storage that does. A
process that waits for them is a step or two ahead, and can go no further.
"""

from collections.abc import Callable

from absl import logging

# No step takes so long that others have begun.
PATIENCE_SECONDS = 300.0


class Laggards:
  """Warns once of each, by its name.

  Args:
    name: of a process.
  """

  def __init__(
    self, name: Callable[[int], str], patience: float = PATIENCE_SECONDS
  ):
    self._name, self._patience = name, patience
    # By process: the last step that it has begun.
    self._steps: dict[int, int] = {}
    # Since when others are known to be ahead, and of which step was warned.
    self._behind: dict[int, float] = {}
    self._warned: dict[int, int] = {}

  def note(self, process: int, step: int) -> None:
    """A process says which step it has begun last."""
    if self._steps.get(process) != step:
      self._steps[process] = step
      self._behind.pop(process, None)

  def warn(self, now: float) -> None:
    """Warns of those that have been behind for longer than patience lasts.

    Args:
      now: on the clock of `time.monotonic`.
    """
    last = max(self._steps.values(), default=0)
    for process, step in self._steps.items():
      if step == last:
        continue
      late = now - self._behind.setdefault(process, now)
      if late > self._patience and self._warned.get(process) != step:
        self._warned[process] = step
        logging.warning(
          "%s has begun no step after %d, and others have waited %.0f s for it "
          "in step %d: what it does hangs, or is slow",
          *(self._name(process), step, late, last),
        )
