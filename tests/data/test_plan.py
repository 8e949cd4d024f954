"""The plan is a permutation of every epoch, and its numbers never change."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from data import plan


@hypothesis.given(st.integers(1, 3000), st.integers(0, 2**70))
def test_feistel_is_a_bijection(size, key):
  image = plan.feistel(np.arange(size), size, key)
  assert sorted(image.tolist()) == list(range(size))


def test_feistel_has_golden_values():
  got = plan.feistel(np.arange(10), 1000, 7).tolist()
  assert got == [536, 239, 457, 415, 331, 311, 25, 969, 381, 113], (
    f"{got}: the permutation has changed, so every run that resumes and every "
    "split of the dates would see other examples"
  )
  big = plan.feistel(np.array([0, 1, 10**12 - 1]), 10**12, 2**64 - 1)
  assert big.tolist() == [863084557367, 632548190152, 837780203277]


def test_feistel_depends_on_key_and_mixes():
  index = np.arange(5000)
  one, two = plan.feistel(index, 5000, 1), plan.feistel(index, 5000, 2)
  assert (one == two).mean() < 0.01
  assert abs(np.corrcoef(index, one)[0, 1]) < 0.05
  # Neighbours do not stay neighbours.
  assert (np.abs(np.diff(one)) == 1).mean() < 0.01


def test_feistel_uses_all_orders_of_a_small_set():
  orders = {
    tuple(plan.feistel(np.arange(4), 4, key).tolist()) for key in range(600)
  }
  # A Feistel network of two bits reaches the even permutations or all.
  assert len(orders) >= 12


@pytest.mark.parametrize("index", [-1, 10])
def test_feistel_refuses_an_index_outside(index):
  with pytest.raises(ValueError, match="permutation of 10"):
    plan.feistel(np.array([index]), 10, 0)


@hypothesis.given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 99))
def test_no_pair_is_lost_or_doubled_in_an_epoch(pairs, batch, seed):
  order = plan.Plan(pairs, batch, seed)
  steps = 3 * pairs // batch + 2
  rows = np.concatenate([order.members(n) for n in range(steps)])
  for epoch in range(len(rows) // pairs):
    seen = rows[epoch * pairs : (epoch + 1) * pairs]
    assert sorted(seen.tolist()) == list(range(pairs))


def test_epochs_and_seeds_have_their_own_orders():
  first, second = (plan.Plan(50, 50, 3).members(n) for n in (0, 1))
  other = plan.Plan(50, 50, 4).members(0)
  assert (first == plan.Plan(50, 50, 3).members(0)).all()
  assert (first != second).any() and (first != other).any()


def test_rows_do_not_depend_on_the_batch_size():
  small = np.concatenate([plan.Plan(37, 4, 1).members(n) for n in range(12)])
  large = np.concatenate([plan.Plan(37, 16, 1).members(n) for n in range(3)])
  np.testing.assert_array_equal(small, large)


def test_steps_beyond_32_bits_are_found_at_once():
  members = plan.Plan(7, 4, 0).members(10**14)
  assert members.min() >= 0 and members.max() < 7


def test_plan_refuses_what_is_none():
  for pairs, batch in ((0, 1), (1, 0)):
    with pytest.raises(ValueError):
      plan.Plan(pairs, batch, 0)
  with pytest.raises(ValueError, match="step -1"):
    plan.Plan(1, 1, 0).members(-1)


def test_fingerprint_tells_plans_apart():
  prints = {
    plan.Plan(*numbers).fingerprint(fact)
    for numbers in ((5, 2, 0), (6, 2, 0), (5, 3, 0), (5, 2, 1))
    for fact in ("a", "b")
  }
  assert len(prints) == 8
