"""Stopping: points at which a run stops, and what is given up for it."""

import signal
import threading

import pytest

from train.cli.signals import Saving
from train.processes.stopping import Stopped, Stopping


def test_a_signal_stops_at_the_next_point():
  saving = Saving([])
  stopping = Stopping(saving)
  stopping.check()
  saving.received.append(signal.SIGTERM)
  assert stopping.asked()
  with pytest.raises(Stopped):
    stopping.check()


def test_a_compilation_is_given_up_at_a_signal():
  saving, release = Saving([]), threading.Event()
  stopping = Stopping(saving)

  def compile_it():
    saving.received.append(signal.SIGTERM)
    assert release.wait(60)

  with pytest.raises(Stopped):
    stopping.compiling(compile_it)
  assert stopping.abandoned
  release.set()


def test_a_compilation_ends_as_it_would_by_itself():
  stopping, done = Stopping(Saving([])), []
  stopping.compiling(lambda: done.append(1))
  assert done == [1] and not stopping.abandoned

  def fails():
    raise ValueError("no such operation")

  with pytest.raises(ValueError, match="no such operation"):
    stopping.compiling(fails)
