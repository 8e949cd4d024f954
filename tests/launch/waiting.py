"""Waiting for what other processes do."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(condition: Callable[[], Found], seconds: float = 60.0) -> Found:
  """What the condition gives when it holds; fails after `seconds`."""
  end = time.monotonic() + seconds
  while not (found := condition()):
    assert time.monotonic() < end, "waited in vain"
    time.sleep(0.02)
  return found
