"""Rows are given in order, each source once, on its own shard."""

import jax
import numpy as np

from encdec.generation.scheduler import RowScheduler, take_rows


def test_a_source_takes_a_row_of_its_own_shard():
  scheduler = RowScheduler(iter(range(1, 20)), rows=6, shards=2)
  assert scheduler.needs_sources and scheduler.fetch()
  # Neighbours lie on different shards.
  assert scheduler.waiting == [1, 3, 5, 2, 4, 6]
  scheduler.assign_all()
  assert scheduler.free == 0 and not scheduler.needs_sources
  assert scheduler.release([False, True, False, False, False, True]) == [
    (1, 3),
    (5, 6),
  ]
  assert scheduler.needs_sources and scheduler.fetch()
  assert not scheduler.needs_sources
  assert scheduler.waiting == [7, 9, 11, 8, 10, 12]
  assert scheduler.assign().tolist() == [-1, 0, -1, -1, -1, 0]
  assert scheduler.assigned == [1, 7, 5, 2, 4, 8]
  assert scheduler.waiting == [None, 9, 11, None, 10, 12]


def test_the_last_sources_are_assigned_whatever_shard_they_wait_on():
  scheduler = RowScheduler(iter("abcde"), rows=4, shards=2)
  left = []
  while True:
    if scheduler.needs_sources:
      scheduler.fetch()
    if scheduler.free == 4:
      if scheduler.drained:
        break
      scheduler.assign_all()
    else:
      scheduler.assign()
    # One row at a time is done.
    first = next(i for i, held in enumerate(scheduler.assigned) if held)
    left += scheduler.release([row == first for row in range(4)])
  assert sorted(source for _, source in left) == list("abcde")


def test_no_source_is_overtaken_for_long():
  """One shard ends three texts a turn, the other one."""
  scheduler, late = RowScheduler(iter(range(600)), rows=8, shards=2), []
  while not scheduler.exhausted:
    if scheduler.needs_sources:
      scheduler.fetch()
    if scheduler.free == 8:
      scheduler.assign_all()
    else:
      scheduler.assign()
    waiting = [source for source in scheduler.waiting if source is not None]
    late += [scheduler.arrived - source for source in waiting]
    scheduler.release([row in (0, 1, 2, 4) for row in range(8)])
  assert max(late) <= 40


def test_each_source_is_given_once_in_order_with_its_row():
  """One shard: rows that are done take those that wait, first come first."""
  scheduler, started, ended = RowScheduler(iter(range(9)), 3, 1), [], []
  done = [False, True, False]
  while not (scheduler.drained and scheduler.free == 3):
    if scheduler.needs_sources:
      scheduler.fetch()
    before = list(scheduler.assigned)
    taken = scheduler.assign() >= 0
    assert not any(before[row] is not None for row in np.flatnonzero(taken))
    started += sorted(scheduler.assigned[row] for row in np.flatnonzero(taken))
    left = scheduler.release(done)
    assert all(done[row] for row, _ in left)
    ended += [source for _, source in left]
    done = done[1:] + done[:1]
  assert started == sorted(ended) == list(range(9))


def test_taken_rows_are_written_and_others_left():
  current = {"a": np.arange(8).reshape(4, 2), "b": np.arange(4)}
  waiting = jax.tree.map(lambda leaf: leaf + 100, current)
  taken = np.array([-1, 3, -1, 0], np.int32)
  found = jax.jit(take_rows, static_argnums=(3, 4))(
    current, waiting, taken, ("batch",), None
  )
  for name, leaf in current.items():
    expected = leaf.copy()
    expected[[1, 3]] = waiting[name][[3, 0]]
    np.testing.assert_array_equal(found[name], expected)
