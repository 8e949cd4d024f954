"""Greedy search takes the best, sampling draws by the softmax."""

import jax
import jax.numpy as jnp
import numpy as np

from encdec.generation.search import hypotheses, sampling
from encdec.generation.search.context import SearchContext
from encdec.generation.search.options import SearchOptions


def test_draws_are_as_likely_as_the_softmax_says(seed):
  """The best, and the best two as two draws without replacement."""
  count = 20_000
  p = np.array([0.5, 0.3, 0.15, 0.05])
  scores = np.broadcast_to(np.log(p), (count, 1, 4)).astype(np.float32)
  keys = jax.random.split(jax.random.key(seed), count)
  steps = np.full((count,), 3, np.int32)
  noise = np.asarray(jax.jit(sampling.noise)(keys, steps, scores))
  ranked = np.argsort(-(scores + noise)[:, 0], axis=-1)
  for first in range(4):
    share = (ranked[:, 0] == first).mean()
    assert abs(share - p[first]) < 5 * np.sqrt(p[first] / count)
    for second in set(range(4)) - {first}:
      expected = p[first] * p[second] / (1 - p[first])
      share = (ranked[:, :2] == [first, second]).all(-1).mean()
      assert abs(share - expected) < 5 * np.sqrt(expected / count)


def test_a_row_draws_by_its_own_key_and_step():
  keys = jax.random.split(jax.random.key(0), 3)
  noise = jax.jit(sampling.noise)
  steps, scores = np.array([4, 0, 4], np.int32), np.zeros((3, 2, 5), np.float32)
  found = noise(keys, steps, scores)
  other = noise(keys[::-1], np.array([4, 1, 4], np.int32), scores)
  np.testing.assert_array_equal(other[::2], found[::2][::-1])
  assert (other[1] != found[1]).all() and (found[0] != found[2]).all()
  assert (found[:, 0] != found[:, 1]).all()


def test_greedy_search_takes_the_best_until_an_end_token():
  """Then it pads; scores are sums of log-probabilities up to the end."""
  options = SearchOptions(
    jnp.int32(5),
    jnp.int32(0),
    length_penalty=jnp.float32(2.0),
    end_tokens=(2,),
    sum_log_probs=True,
  )
  search = SearchContext(options, "cpu", vocab_size=6)
  texts = hypotheses.start(
    jnp.ones((2, 1), jnp.int32),
    jnp.ones((2, 1), bool),
    width=1,
    slots=4,
    pad_token=options.pad_token,
    reorder=False,
  )
  expected = np.array([[1, 4, 2, 0, 0], [1, 3, 5, 3, 4]])
  logits = np.random.default_rng(0).normal(size=(4, 2, 1, 6)).astype(np.float32)
  for step, row in np.ndindex(4, 2):
    logits[step, row, 0, expected[row, 1 + step]] = 5.0
  advance = jax.jit(
    lambda state, logits: sampling.advance(state, logits, search, jnp.int32(0))
  )
  state = sampling.start(texts, None, sum_scores=True)
  for step in range(4):
    assert not state.done[1] and state.done[0] == (step >= 2)
    state, scores = advance(state, logits[step])
    np.testing.assert_array_equal(scores, logits[step])
  assert state.done.all()
  np.testing.assert_array_equal(state.texts.tokens[:, 0], expected)
  assert state.lengths.tolist() == [[3], [5]]
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  sums = [
    sum(log_probs[step, row, 0, expected[row, 1 + step]] for step in range(new))
    for row, new in ((0, 2), (1, 4))
  ]
  np.testing.assert_allclose(
    sampling.final_scores(state, search)[:, 0],
    [sums[0] / 2**2, sums[1] / 4**2],
    rtol=1e-5,
  )
