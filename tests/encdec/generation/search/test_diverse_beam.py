"""Groups of beams: each is penalised for what those before it have chosen."""

import jax
import jax.numpy as jnp
import numpy as np

from encdec.generation.search import diverse_beam, hypotheses
from encdec.generation.search.context import SearchContext
from encdec.generation.search.options import SearchOptions

ROWS, VOCAB, STEPS, WIDTH, GROUPS = 3, 6, 3, 4, 2
SIZE = WIDTH // GROUPS
# The logits after each token; one is likely after all.
TABLE = np.random.default_rng(1).normal(size=(VOCAB, VOCAB)).astype(np.float32)
TABLE[:, 4] += 2.0


@jax.jit
def _step(state, search):
  logits = jnp.asarray(TABLE)[hypotheses.last_tokens(state.texts)]
  state, scores = diverse_beam.advance(state, logits, search, jnp.int32(0))
  return state, scores, jax.nn.log_softmax(logits, axis=-1)


def _run(penalty):
  """Of each step: the tokens chosen, the scores and the log-probabilities."""
  options = SearchOptions(
    jnp.int32(20),
    jnp.int32(0),
    diversity_penalty=jnp.float32(penalty),
    num_beams=WIDTH,
    num_groups=GROUPS,
  )
  search = SearchContext(options, "cpu", vocab_size=VOCAB)
  texts = hypotheses.start(
    jnp.arange(ROWS, dtype=jnp.int32)[:, None],
    jnp.ones((ROWS, 1), bool),
    width=WIDTH,
    slots=STEPS,
    pad_token=jnp.int32(0),
    reorder=False,
  )
  state = diverse_beam.start(texts, GROUPS, keep_parents=False)
  found = []
  for number in range(STEPS):
    state, scores, log_probs = _step(state, search)
    chosen = np.asarray(state.texts.tokens)[:, :, 1 + number]
    found.append((chosen, np.asarray(scores), np.asarray(log_probs)))
  return found


def test_a_token_costs_the_penalty_each_time_it_was_chosen():
  most = 0
  for chosen, scores, log_probs in _run(0.5):
    np.testing.assert_allclose(scores[:, :SIZE], log_probs[:, :SIZE], atol=1e-5)
    for row in range(ROWS):
      counts = np.bincount(chosen[row, :SIZE], minlength=VOCAB)
      most = max(most, *counts)
      expected = log_probs[row, SIZE:] - 0.5 * counts
      np.testing.assert_allclose(scores[row, SIZE:], expected, atol=1e-5)
  assert most > 1, "some token was chosen twice"


def test_groups_are_equal_or_disjoint_by_the_penalty():
  for (free, _, _), (apart, _, _) in zip(_run(0.0), _run(100.0), strict=True):
    np.testing.assert_array_equal(free[:, :SIZE], free[:, SIZE:])
    # The first group chooses freely.
    np.testing.assert_array_equal(free[:, :SIZE], apart[:, :SIZE])
    for row in apart:
      assert not set(row[:SIZE].tolist()) & set(row[SIZE:].tolist())
