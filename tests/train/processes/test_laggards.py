"""Laggards: who is warned of, and that nobody else is."""

import logging

import pytest

from train.processes.laggards import Laggards


@pytest.fixture
def laggards(caplog):
  """Of processes that are at step 5."""
  caplog.set_level(logging.WARNING)
  found = Laggards(lambda process: f"process {process} on h", patience=60.0)
  for process in range(3):
    found.note(process, 5)
  return found


def test_a_process_that_stays_behind_is_named_once(laggards, caplog):
  laggards.warn(now=1000.0)
  laggards.note(0, 6)
  laggards.note(2, 6)
  for now in (1010.0, 1069.0):
    laggards.warn(now)
  assert not caplog.messages
  for now in (1071.0, 1200.0):
    laggards.note(1, 5)
    laggards.warn(now)
  [message] = caplog.messages
  assert message.startswith(
    "process 1 on h has begun no step after 5, and others have waited 61 s"
  )
  # It goes on, and falls behind again.
  laggards.note(1, 6)
  laggards.note(0, 7)
  laggards.note(2, 7)
  for now in (1210.0, 1271.0):
    laggards.warn(now)
  assert len(caplog.messages) == 2


def test_processes_that_do_something_together_are_none(laggards, caplog):
  """As a long evaluation, after which one is heard of first."""
  laggards.warn(now=0.0)
  laggards.note(0, 6)
  laggards.warn(now=10_000.0)
  laggards.note(1, 6)
  laggards.note(2, 6)
  laggards.warn(now=10_005.0)
  assert not caplog.messages
