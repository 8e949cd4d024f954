"""The device loop: it ends in time, and what is done stays as it was."""

import jax
import jax.numpy as jnp
import numpy as np

from encdec.generation.search import hypotheses, loop, sampling
from encdec.generation.search.context import SearchContext
from encdec.generation.search.options import SearchOptions
from encdec.types import SelfCache


def test_the_loop_stops_when_all_rows_have_ended():
  calls = []

  def step(tokens, view, cache):
    jax.debug.callback(lambda: calls.append(1))
    # The end token after token 5, which follows the start.
    logits = jnp.zeros((2, 1, 8)).at[..., 5].set(1.0)
    logits = logits.at[..., 2].set(jnp.where(tokens == 5, 2.0, 0.0))
    return logits, cache

  options = SearchOptions(jnp.int32(32), jnp.int32(0), end_tokens=(2, 3))
  texts = hypotheses.start(
    jnp.ones((2, 1), jnp.int32),
    jnp.ones((2, 1), bool),
    width=1,
    slots=32,
    pad_token=options.pad_token,
    reorder=False,
  )
  loop_state = loop.LoopState(
    state=sampling.start(texts, None, sum_scores=False),
    cache=SelfCache(((jnp.zeros((2, 1, 32, 1, 4)),) * 2,)),
    slot=jnp.int32(0),
  )
  state = loop.run(
    step, loop_state, SearchContext(options, "cpu", vocab_size=8), jnp.int32(2)
  ).state
  jax.effects_barrier()
  assert len(calls) == 2
  np.testing.assert_array_equal(
    state.texts.tokens[:, 0, :4], [[1, 5, 2, 0]] * 2
  )


def test_a_source_that_is_done_stays_as_it_was():
  """Its neighbour goes on; each step's scores are kept."""
  options = SearchOptions(jnp.int32(7), jnp.int32(0), end_tokens=(2,))
  search = SearchContext(options, "cpu", vocab_size=8)

  def step(tokens, view, cache):
    # The second row counts up from 5 to the end, the first one ends at once.
    best = jnp.where(tokens >= 5, tokens + 1, 5).at[0].set(2)
    best = jnp.where(best > 7, 2, best)
    return jax.nn.one_hot(best, 8), cache

  texts = hypotheses.start(
    jnp.ones((2, 1), jnp.int32),
    jnp.ones((2, 1), bool),
    width=1,
    slots=6,
    pad_token=options.pad_token,
    reorder=False,
  )
  begun = loop.LoopState(
    state=loop.start(texts, options, None),
    cache=SelfCache(((jnp.zeros((2, 1, 6, 1)),) * 2,)),
    slot=jnp.int32(0),
    scores=jnp.zeros((2, 6, 1, 8)),
  )
  run = jax.jit(lambda begun, enough: loop.run(step, begun, search, enough))
  found = run(begun, np.int32(2))
  assert found.state.texts.length.tolist() == [2, 5] and found.slot == 4
  np.testing.assert_array_equal(
    found.state.texts.tokens[:, 0, :5], [[1, 2, 0, 0, 0], [1, 5, 6, 7, 2]]
  )
  assert found.scores[1, :, 0].argmax(-1).tolist() == [5, 6, 7, 2, 0, 0]
  # One of them is enough.
  assert run(begun, np.int32(1)).state.done.tolist() == [True, False]
