"""The best few of a vocabulary are those of `jax.lax.top_k`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.generation.ranking import STRETCH, stretch, stretched, top_k


@pytest.mark.parametrize("vocab", [3 * STRETCH, 1000, 2 * STRETCH + 1, 100])
def test_ranking_equals_top_k(vocab):
  """Few values: equal ones are taken in the order of the vocabulary."""
  random = np.random.default_rng(vocab)
  for values in (2, 5, 50, 100_000):
    scores = random.integers(-values, values, (3, 2, vocab)).astype(np.float32)
    scores[random.random(scores.shape) < 0.5] = -np.inf
    for k in (1, 2, 8):
      found = top_k(jnp.asarray(scores), k)
      expected = jax.lax.top_k(scores, k)
      np.testing.assert_array_equal(found[0], expected[0])
      np.testing.assert_array_equal(found[1], expected[1])


def test_rows_of_almost_nothing():
  scores = np.full((1, 700), -np.inf, np.float32)
  scores[0, [699, 300, 5]] = 1.0, 2.0, 1.0
  best, tokens = top_k(jnp.asarray(scores), 5)
  assert tokens.tolist() == [[300, 5, 699, 0, 1]]
  assert best[0, 3] == -np.inf


def test_whole_stretches_rank_the_same():
  random = np.random.default_rng(0)
  scores = jnp.asarray(random.normal(size=(2, 3, 300)), jnp.float32)
  padded = stretch(scores)
  assert padded.shape == (2, 3, 3 * STRETCH) == (2, 3, stretched(300))
  assert stretch(padded).shape == padded.shape
  for whole, part in zip(top_k(padded, 4), top_k(scores, 4), strict=True):
    np.testing.assert_array_equal(whole, part)
