"""Stopping: all processes of a run stop at the same safe point."""

import contextlib
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
    abandoned: a process still compiles, which no exit waits for.
  """

  def __init__(self, saving: Saving):
    self._saving = saving
    self._points = 0
    self._compiled: set[tuple[Any, ...]] = set()
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
    compilation = _Work(compile_it)
    while compilation.is_alive() and not self._heard():
      compilation.join(_NOTICED_SECONDS)
    mine = np.asarray([self._heard(), compilation.is_alive()])
    # Others may compile longer, and are told of a signal that comes meanwhile.
    exchange = _Work(lambda: multihost_utils.process_allgather(mine))
    while exchange.is_alive():
      self._heard()
      exchange.join(_NOTICED_SECONDS)
    every = np.asarray(exchange.result()).reshape(-1, 2)
    if every[:, 0].any():
      self.abandoned = bool(every[:, 1].any())
      raise Stopped
    compilation.result()

  def call(self, program: Any, *args: Any, **kwargs: Any) -> Any:
    """What a jitted program gives, compiled first where that takes time.

    All processes call it alike.

    Raises:
      Stopped: as of `compiling`.
    """
    leaves = jax.tree.leaves((args, kwargs))
    # A program is one of shapes, and of where arrays lie.
    kinds = [
      (leaf.shape, leaf.dtype, leaf.sharding)
      for leaf in leaves
      if isinstance(leaf, jax.Array)
    ]
    key = (program, *kinds)
    if key not in self._compiled:
      # JAX keeps what is compiled here for the call.
      self.compiling(lambda: program.lower(*args, **kwargs).compile())
      self._compiled.add(key)
    return program(*args, **kwargs)

  def _heard(self) -> bool:
    """Whether this process knows of a signal, its own or another's."""
    if self._saving.received:
      heartbeat.tell_of_stop()
    return bool(self._saving.received) or heartbeat.stop_was_told()


class _Work(threading.Thread):
  """Work in a thread, with the mesh that is set here; it begins at once."""

  def __init__(self, work: Callable[[], Any]):
    super().__init__(name="compile", daemon=True)
    self._work, self._mesh = work, jax.sharding.get_mesh()
    self._error: BaseException | None = None
    self._result: Any = None
    self.start()

  def run(self) -> None:
    try:
      with contextlib.ExitStack() as stack:
        # Which mesh is set is a thread's own.
        if not self._mesh.empty:
          stack.enter_context(jax.set_mesh(self._mesh))
        self._result = self._work()
    except BaseException as error:
      self._error = error

  def result(self) -> Any:
    """What came of it; raises what it raised."""
    self.join()
    if self._error is not None:
      raise self._error
    return self._result
