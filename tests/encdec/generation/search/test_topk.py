"""The best few of a vocabulary are those of JAX, in either layout of scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.generation.search import topk
from encdec.generation.search.topk import TILE, pad_to_tiles, padded_size, top_k
from encdec.layers.matmul import skinny_matmul


@pytest.mark.parametrize("vocab_major", [False, True])
@pytest.mark.parametrize("vocab", [3 * TILE, 1000, 2 * TILE + 1, 100])
def test_ranking_equals_top_k(vocab, vocab_major):
  """Few values: equal ones are taken in the order of the vocabulary."""
  random = np.random.default_rng(vocab)
  for values in (2, 5, 50, 100_000):
    scores = random.integers(-values, values, (3, 2, vocab)).astype(np.float32)
    scores[random.random(scores.shape) < 0.5] = -np.inf
    for k in (1, 2, 8):
      found = top_k(jnp.asarray(scores), k, vocab_major=vocab_major)
      expected = jax.lax.top_k(scores, k)
      np.testing.assert_array_equal(found[0], expected[0])
      np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("vocab_major", [False, True])
@pytest.mark.parametrize("vocab", [700, 100])
def test_the_best_is_the_first_of_equals(vocab, vocab_major):
  random = np.random.default_rng(vocab)
  for values in (1, 2, 100_000):
    scores = random.integers(-values, values, (3, 2, vocab)).astype(np.float32)
    scores[random.random(scores.shape) < 0.5] = -np.inf
    scores[0, 0] = -np.inf
    found = topk.argmax(jnp.asarray(scores), "cpu", vocab_major=vocab_major)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, jnp.argmax(scores, axis=-1))
  nan = jnp.full((2, 1, vocab), jnp.nan).at[0, 0, 9].set(-5.0)
  assert set(
    topk.argmax(nan, "cpu", vocab_major=vocab_major).flatten().tolist()
  ) <= {
    0,
    9,
  }


@pytest.mark.parametrize("vocab_major", [False, True])
def test_the_best_where_the_largest_is_rounded_otherwise(
  vocab_major, monkeypatch
):
  """As where XLA computes scores once for their largest, once to find it."""
  largest = jnp.max
  monkeypatch.setattr(
    jnp, "max", lambda *args, **kwargs: largest(*args, **kwargs) * 1.0000002
  )
  scores = jax.random.normal(jax.random.key(0), (3, 2, 700))
  found = topk.argmax(scores, "cpu", vocab_major=vocab_major)
  np.testing.assert_array_equal(found, jnp.argmax(scores, axis=-1))


def test_log_probabilities_of_scores_that_are_vocab_major():
  logits = jax.random.normal(jax.random.key(0), (3, 4, 500)) * 30
  logits = logits.at[..., 7].set(-jnp.inf)
  found = topk.log_softmax(logits, vocab_major=True)
  expected = jax.nn.log_softmax(logits, axis=-1)
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


def test_rows_are_ranked_as_a_cpu_leaves_them():
  """None is turned, and all are made at once: along one axis."""
  many, few = jnp.ones((1000, 8)), jnp.ones((4, 4, 8))

  def best(many, few):
    axes = (((2,), (1,)), ((), ()))
    bias = jnp.arange(1000, dtype=jnp.float32)
    logits = skinny_matmul(few, many, axes, jnp.float32, "cpu", bias=bias)
    scores = topk.log_softmax(logits, vocab_major=True)
    return topk.top_k(
      jnp.where(scores < -1e5, 0.0, scores), 3, vocab_major=True
    )

  text = jax.jit(best).lower(many, few).compile().as_text()
  assert topk.prefers_vocab_major(16, "cpu")
  assert "f32[1000,16]" in text
  entry = text.split("ENTRY")[1]
  assert "f32[4,4,1000]" not in entry
  assert "f32[896,16]" in entry and "f32[896,4,4]" not in entry


@pytest.mark.parametrize("vocab_major", [False, True])
def test_rows_of_almost_nothing(vocab_major):
  scores = np.full((1, 700), -np.inf, np.float32)
  scores[0, [699, 300, 5]] = 1.0, 2.0, 1.0
  best, tokens = top_k(jnp.asarray(scores), 5, vocab_major=vocab_major)
  assert tokens.tolist() == [[300, 5, 699, 0, 1]]
  assert best[0, 3] == -np.inf


def test_whole_tiles_rank_the_same():
  random = np.random.default_rng(0)
  scores = jnp.asarray(random.normal(size=(2, 3, 300)), jnp.float32)
  padded = pad_to_tiles(scores)
  assert padded.shape == (2, 3, 3 * TILE) == (2, 3, padded_size(300))
  assert pad_to_tiles(padded).shape == padded.shape
  for whole, part in zip(top_k(padded, 4), top_k(scores, 4), strict=True):
    np.testing.assert_array_equal(whole, part)
