"""Pieces of a work: in order, one by one, and no signal among them."""

import signal
import threading

import pytest

from data.store import worker_processes


def test_a_piece_is_done_when_it_is_asked_for():
  done = []
  pieces = worker_processes.in_order(done.append, 3, 1)
  assert not done
  for number in range(3):
    assert next(pieces) == number and done == list(range(number + 1))
  assert list(pieces) == []


def test_nothing_is_done_after_a_piece_that_fails():
  done = []

  def work(piece):
    done.append(piece)
    if piece == 1:
      raise KeyError("piece 1")

  with pytest.raises(KeyError, match="piece 1"):
    list(worker_processes.in_order(work, 3, 1))
  assert done == [0, 1]


def test_what_begins_in_a_shelter_hears_no_signal():
  def mask():
    """Of a thread that begins now."""
    masks = []
    look = lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return masks[0]

  before = mask()
  with pytest.raises(KeyError), worker_processes.sheltered():
    assert mask() == before | {signal.SIGINT, signal.SIGTERM} != before
    raise KeyError
  assert mask() == before
