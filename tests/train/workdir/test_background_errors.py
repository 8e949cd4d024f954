"""Errors of a save in the background reach whoever waits for it."""

import asyncio
import concurrent.futures
import threading

import pytest

from train.workdir.background_errors import BackgroundErrors


def futures_of(errors, *given):
  """What a save gives whose futures are watched."""

  async def save():
    return list(given)

  return asyncio.run(errors.watching(save)())


def test_a_wait_that_would_never_end_ends_with_the_error():
  errors, never = BackgroundErrors(), threading.Event()
  failing = concurrent.futures.Future()
  [watched] = futures_of(errors, failing)
  failing.set_exception(OSError(27, "File too large"))

  def fail():
    with pytest.raises(OSError, match="File too large"):
      watched.result()

  threading.Timer(0.2, fail).start()
  with pytest.raises(OSError, match="File too large"):
    errors.wait(lambda: never.wait(60))
  never.set()


def test_what_the_wait_itself_meets_is_raised():
  def finish():
    raise ValueError("no such step")

  with pytest.raises(ValueError, match="no such step"):
    BackgroundErrors().wait(finish)


def test_a_good_save_is_waited_for():
  errors, done = BackgroundErrors(), []
  good = concurrent.futures.Future()
  good.set_result(7)
  [watched] = futures_of(errors, good)
  assert watched.result(timeout=1.0) == 7
  errors.wait(lambda: done.append(1))
  assert done == [1]
  assert asyncio.run(errors.watching(_nothing)()) == []


async def _nothing():
  return None


def test_the_first_error_is_the_one():
  errors = BackgroundErrors()
  for text in ("first", "second"):
    with pytest.raises(KeyError), errors.kept():
      raise KeyError(text)
  with pytest.raises(KeyError, match="first"):
    errors.wait(lambda: None)
  with pytest.raises(KeyError, match="first"):
    errors.check()
  BackgroundErrors().check()
