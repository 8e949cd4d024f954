"""A permutation is a bijection that a key chooses, the same everywhere."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from data.permutation import feistel


@hypothesis.given(st.integers(1, 3000), st.integers(0, 2**70))
def test_feistel_is_a_bijection(size, key):
  image = feistel(np.arange(size), size, key)
  assert sorted(image.tolist()) == list(range(size))


def test_feistel_has_golden_values():
  got = feistel(np.arange(10), 1000, 7).tolist()
  assert got == [536, 239, 457, 415, 331, 311, 25, 969, 381, 113], (
    f"{got}: the permutation has changed, so every run that resumes and every "
    "split of the dates would see other examples"
  )
  big = feistel(np.array([0, 1, 10**12 - 1]), 10**12, 2**64 - 1)
  assert big.tolist() == [863084557367, 632548190152, 837780203277]


def test_feistel_depends_on_key_and_mixes():
  index = np.arange(5000)
  one, two = feistel(index, 5000, 1), feistel(index, 5000, 2)
  assert (one == two).mean() < 0.01
  assert abs(np.corrcoef(index, one)[0, 1]) < 0.05
  # Neighbours do not stay neighbours.
  assert (np.abs(np.diff(one)) == 1).mean() < 0.01


def test_feistel_uses_all_orders_of_a_small_set():
  orders = {tuple(feistel(np.arange(4), 4, key).tolist()) for key in range(600)}
  # A Feistel network of two bits reaches the even permutations or all.
  assert len(orders) >= 12


@pytest.mark.parametrize("index", [-1, 10])
def test_feistel_refuses_an_index_outside(index):
  with pytest.raises(ValueError, match="permutation of 10"):
    feistel(np.array([index]), 10, 0)
