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
    # By process: the last step that it has begun, and since when it is known.
    self._steps: dict[int, tuple[int, float]] = {}
    self._warned: dict[int, int] = {}

  def note(self, process: int, step: int, now: float) -> None:
    """A process says which step it has begun last."""
    if self._steps.get(process, (-1, now))[0] != step:
      self._steps[process] = step, now

  def warn(self, now: float) -> None:
    """Warns of those that have stayed behind for longer than patience lasts."""
    last = max((step for step, _ in self._steps.values()), default=0)
    for process, (step, since) in self._steps.items():
      late = step < last and now - since > self._patience
      if late and self._warned.get(process) != step:
        self._warned[process] = step
        logging.warning(
          "%s has begun no step after %d for %.0f s, and others wait for it in "
          "step %d: what it does hangs, or is slow",
          *(self._name(process), step, now - since, last),
        )
