"""Errors of a save in the background, told while others still wait for it.

A process whose files could not be written misses a barrier of the others, and
waits in one itself; what went wrong must be known before they give up.
"""

import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

_POLL_SECONDS = 0.02
Save = Callable[..., Awaitable[Sequence[Any] | None]]


class WatchedFuture:
  """A future of a save, whose error is kept as soon as it is there."""

  def __init__(self, future: Any, errors: "BackgroundErrors"):
    self._future = future
    self._errors = errors

  def result(self, timeout: float | None = None) -> Any:
    with self._errors.kept():
      return self._future.result(timeout=timeout)


class BackgroundErrors:
  """The first error of a save under way."""

  def __init__(self) -> None:
    self._first: BaseException | None = None

  @contextlib.contextmanager
  def kept(self) -> Iterator[None]:
    """What is raised inside, in whatever thread, is what went wrong."""
    try:
      yield
    except BaseException as error:
      self._first = self._first or error
      raise

  def watching(self, save: Save) -> Save:
    """The same save, whose futures keep their errors here."""

    async def saving(*args: Any, **kwargs: Any) -> list[WatchedFuture]:
      futures = await save(*args, **kwargs)
      return [WatchedFuture(future, self) for future in futures or ()]

    return saving

  def check(self) -> None:
    """Raises the error, if there is one."""
    if self._first is not None:
      raise self._first

  def wait(self, finish: Callable[[], None]) -> None:
    """Does `finish`, which waits; raises what went wrong as soon as known."""

    def work() -> None:
      try:
        with self.kept():
          finish()
      except Exception:
        pass  # Raised below.

    thread = threading.Thread(target=work, name="wait for a save", daemon=True)
    thread.start()
    while thread.is_alive() and self._first is None:
      thread.join(_POLL_SECONDS)
    self.check()
