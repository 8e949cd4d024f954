"""Laggards: who is warned of, and that nobody else is."""

import logging

import pytest

from train.processes.laggards import Laggards


@pytest.fixture
def laggards(caplog):
  """Of processes that are at step 5 since second 100."""
  caplog.set_level(logging.WARNING)
  found = Laggards(lambda process: f"process {process} on h", patience=60)
  for process in range(3):
    found.note(process, 4, now=0)
    found.note(process, 5, now=100)
  return found


def test_a_process_that_stays_behind_is_named_once(laggards, caplog):
  laggards.note(0, 6, now=110)
  laggards.note(2, 6, now=110)
  for now in (110, 159):
    laggards.warn(now)
  assert not caplog.messages
  for now in (161, 200):
    laggards.note(1, 5, now)
    laggards.warn(now)
  [message] = caplog.messages
  assert message.startswith("process 1 on h has begun no step after 5 for 61 s")
  # It goes on, and falls behind again.
  laggards.note(1, 6, now=210)
  laggards.note(0, 7, now=210)
  laggards.warn(now=280)
  assert [text.split(" has")[0] for text in caplog.messages[1:]] == [
    "process 1 on h",
    "process 2 on h",
  ]


def test_processes_that_do_something_together_are_none(laggards, caplog):
  """As a long evaluation, or a compilation."""
  laggards.warn(now=10_000)
  assert not caplog.messages
