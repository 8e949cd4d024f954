"""Stopping: all processes of a run stop at the same safe point."""

import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from train.cli.signals import Saving
from train.processes import heartbeat

# A signal is noticed as soon, while a thread compiles.
_NOTICED_SECONDS = 0.2


class Stopped(Exception):
  """What was being done is given up: the run stops here."""


class Stopping:
  """Asked by all processes alike; it says the same to all of them.

  Attributes:
    abandoned: a thread still compiles, which no exit waits for.
  """

  def __init__(self, saving: Saving):
    self._saving = saving
    self._points = 0
    self.abandoned = False

  def begin(self) -> None:
    """From here on processes stop together, and none ends by itself."""
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("steps_begin")
      self._saving.begin()

  def asked(self) -> bool:
    """Whether the run stops at this point, where its state can be saved."""
    if jax.process_count() == 1:
      return bool(self._saving.received)
    # JAX lets processes agree on a number that all of them come to.
    self._points += 1
    return multihost_utils.reached_preemption_sync_point(self._points)

  def check(self) -> None:
    """Raises Stopped where the run stops at this point."""
    if self.asked():
      raise Stopped

  def compiling(self, compile_it: Callable[[], Any]) -> None:
    """Does what may take minutes, unless the run stops meanwhile.

    Raises:
      Stopped: in all processes, where one of them was asked to stop.
    """
    errors: list[BaseException] = []

    def work() -> None:
      try:
        compile_it()
      except BaseException as error:
        errors.append(error)

    thread = threading.Thread(target=work, name="compile", daemon=True)
    thread.start()
    while thread.is_alive() and not self._heard():
      thread.join(_NOTICED_SECONDS)
    stop = np.asarray(self._heard())
    if np.asarray(multihost_utils.process_allgather(stop)).any():
      self.abandoned = thread.is_alive()
      raise Stopped
    thread.join()
    if errors:
      raise errors[0]

  def _heard(self) -> bool:
    """Whether this process knows of a signal, its own or another's."""
    if self._saving.received:
      heartbeat.tell_of_stop()
    return bool(self._saving.received) or heartbeat.stop_was_told()
