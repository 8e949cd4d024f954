"""The plan is a permutation of every epoch, and its numbers never change."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from data import plan


def _rows(size: int, batch: int, seed: int) -> plan.Plan:
  """A plan of one source, a pair a row."""
  return plan.Plan((plan.OnePairRows(size),), (size,), (1.0,), batch, seed)


def _mixed(sizes, weights, batch=7, seed=0) -> plan.Plan:
  units = tuple(plan.OnePairRows(size) for size in sizes)
  return plan.Plan(units, tuple(sizes), tuple(weights), batch, seed)


def _pairs(order: plan.Plan, step: int) -> list[int]:
  members = order.members(step)
  assert members.rows.tolist() == list(range(order.batch_size))
  return members.pairs.tolist()


@hypothesis.given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 99))
def test_no_pair_is_lost_or_doubled_in_an_epoch(pairs, batch, seed):
  order = _rows(pairs, batch, seed)
  steps = 3 * pairs // batch + 2
  rows = [pair for n in range(steps) for pair in _pairs(order, n)]
  for epoch in range(len(rows) // pairs):
    seen = rows[epoch * pairs : (epoch + 1) * pairs]
    assert sorted(seen) == list(range(pairs))


def test_plans_have_golden_values():
  changed = "the order has changed, so every run that resumes sees other pairs"
  assert _pairs(_rows(50, 8, 3), 0) == [23, 25, 44, 7, 4, 47, 28, 11], changed
  mixed = _mixed((50, 20), (0.7, 0.3), batch=12)
  assert _pairs(mixed, 1000) == [
    17,
    10,
    60,
    49,
    59,
    68,
    4,
    55,
    63,
    45,
    50,
    11,
  ], changed


def test_epochs_and_seeds_have_their_own_orders():
  first, second = (_pairs(_rows(50, 50, 3), n) for n in (0, 1))
  other = _pairs(_rows(50, 50, 4), 0)
  assert first == _pairs(_rows(50, 50, 3), 0)
  assert first != second and first != other


def test_rows_do_not_depend_on_the_batch_size():
  small = [pair for n in range(12) for pair in _pairs(_rows(37, 4, 1), n)]
  large = [pair for n in range(3) for pair in _pairs(_rows(37, 16, 1), n)]
  assert small == large


def test_steps_beyond_32_bits_are_found_at_once():
  members = _rows(7, 4, 0).members(10**14).pairs
  assert members.min() >= 0 and members.max() < 7


def test_plan_refuses_what_is_none():
  for pairs, batch in ((0, 1), (1, 0)):
    with pytest.raises(ValueError):
      _rows(pairs, batch, 0)
  with pytest.raises(ValueError, match="step -1"):
    _rows(1, 1, 0).members(-1)


def test_fingerprint_tells_plans_apart():
  plans = [
    _rows(*numbers) for numbers in ((5, 2, 0), (6, 2, 0), (5, 3, 0), (5, 2, 1))
  ]
  plans += [_mixed((5, 6), (1.0, weight)) for weight in (1.0, 2.0)]
  prints = {each.fingerprint(fact) for each in plans for fact in ("a", "b")}
  assert len(prints) == 12


@pytest.mark.parametrize(
  ("weights", "quotas"),
  [
    ((0.7, 0.3), (700, 300)),
    ((7.0, 3.0), (700, 300)),
    ((1.0, 1.0, 1.0), (334, 333, 333)),
    # Remainders of 0.4, 0.4 and 0.2: the first named wins.
    ((0.1234, 0.1234, 0.7532), (124, 123, 753)),
    ((0.001, 0.999), (1, 999)),
  ],
)
def test_a_mixture_holds_its_shares_in_every_block(weights, quotas):
  order = _mixed([11] * len(weights), weights).order
  assert tuple(order.quotas().tolist()) == quotas
  for block in (0, 1, 12345):
    draws = order.draw(block * plan.BLOCK, plan.BLOCK)
    assert tuple(np.bincount(draws.sources).tolist()) == quotas
  one, two = (order.draw(n * plan.BLOCK, plan.BLOCK).sources for n in (0, 1))
  assert (one != two).any()


@hypothesis.given(
  st.lists(st.integers(1, 40), min_size=2, max_size=4),
  st.integers(30, 70),
  st.integers(0, 99),
)
def test_each_source_of_a_mixture_has_epochs_of_its_own(sizes, batch, seed):
  weights = [1.0 + i for i in range(len(sizes))]
  order = _mixed(sizes, weights, batch, seed)
  seen = [[] for _ in sizes]
  bases = np.cumsum([0, *sizes])
  for step in range(300 // batch):
    for pair in _pairs(order, step):
      source = int(np.searchsorted(bases, pair, side="right")) - 1
      seen[source].append(pair - int(bases[source]))
  for size, pairs in zip(sizes, seen, strict=True):
    for start in range(0, len(pairs) - size + 1, size):
      assert sorted(pairs[start : start + size]) == list(range(size))
  steps = 300 // batch
  assert order.epochs(steps) == tuple(
    len(pairs) / size for size, pairs in zip(sizes, seen, strict=True)
  )


def test_sources_of_one_size_have_their_own_orders():
  draws = _mixed((50, 50), (1.0, 1.0)).order.draw(0, plan.BLOCK)
  one, two = (draws.units[draws.sources == s][:50].tolist() for s in (0, 1))
  assert sorted(one) == sorted(two) and one != two


@pytest.mark.parametrize(
  ("weights", "message"),
  [
    ((0.0, 1.0), "each is above 0"),
    ((float("nan"), 1.0), "each is above 0"),
    ((0.0001, 1.0), "rounds to none of 1000"),
  ],
)
def test_weights_that_give_no_rows_are_refused(weights, message):
  with pytest.raises(ValueError, match=message):
    _mixed((5, 5), weights)


def test_a_plan_may_begin_later_with_a_later_epoch():
  order = _rows(10, 5, 0)
  later = order.begin(101, (1,))
  # Step 2 is the first of epoch 1.
  assert [_pairs(later, 101 + n) for n in range(5)] == [
    _pairs(order, 2 + n) for n in range(5)
  ]
  assert later.epochs(101) == (1.0,) and later.epochs(102) == (1.5,)
  assert later.fingerprint() == order.fingerprint()
  with pytest.raises(ValueError, match="steps count from 101"):
    later.members(100)


@pytest.mark.parametrize("weights", [(1.0,), (0.7, 0.3)])
def test_work_does_not_grow_with_the_step(weights, monkeypatch):
  order = _mixed([1000, 77][: len(weights)], weights, batch=64)
  permuted = []
  feistel = plan.feistel

  def counting(index, size, key):
    permuted.append(len(index))
    return feistel(index, size, key)

  monkeypatch.setattr(plan, "feistel", counting)
  work = []
  for step in (1, 10**6, 10**12):
    permuted.clear()
    order.members(step)
    work.append(sum(permuted))
  # Each row is permuted in its epoch, and of a mixture its block is.
  assert work == [64 + plan.BLOCK * (len(weights) - 1)] * 3
