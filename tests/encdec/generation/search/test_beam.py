"""Beam search against sorting in numpy, and against all texts there are."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.generation.search import beam, hypotheses, sampling
from encdec.generation.search.context import SearchContext
from encdec.generation.search.options import SearchOptions


def _texts(rows, width, capacity):
  return hypotheses.start(
    jnp.ones((rows, 1), jnp.int32),
    jnp.ones((rows, 1), bool),
    width=width,
    slots=capacity - 1,
    pad_token=jnp.int32(0),
    reorder=False,
  )


@pytest.mark.parametrize("draw", [False, True])
def test_candidates_are_the_best_of_all_beams(draw):
  rng = np.random.default_rng(0)
  total = rng.normal(size=(2, 3, 7)).astype(np.float32)
  options = SearchOptions(
    jnp.int32(9), jnp.int32(0), end_tokens=(2, 5), num_beams=3
  )
  search = SearchContext(options, "cpu", vocab_size=7)
  keys = jax.random.split(jax.random.key(0), 2) if draw else None
  texts = _texts(2, 3, 9)
  ranked = total
  if keys is not None:
    step = np.zeros((2,), np.int32)
    ranked = total + jax.jit(sampling.noise)(keys, step, total)
  found = jax.jit(beam.candidates)(texts, total, search, keys)
  # Three of each beam: when both end tokens are among them, one is left.
  order = np.argsort(-np.reshape(ranked, (2, -1)), axis=1)[:, :9]
  np.testing.assert_array_equal(found.beams, order // 7)
  np.testing.assert_array_equal(found.tokens, order % 7)
  # Scores of what is drawn are without the noise.
  expected = np.take_along_axis(total.reshape(2, -1), order, axis=1)
  np.testing.assert_array_equal(found.scores, expected)


@jax.jit
def _step(state, table, search):
  """By logits that only the last token decides."""
  last = hypotheses.last_tokens(state.texts)
  logits = jnp.take_along_axis(table, last[..., None], axis=1)
  return beam.advance(state, logits, search, jnp.int32(0))[0]


@pytest.mark.parametrize("penalty", [0.0, 1.0, -1.0])
def test_enough_beams_find_the_best_of_all_texts(penalty):
  """In their order: of up to three tokens, each by the one before it."""
  end, steps, width = 0, 3, 12
  table = np.random.default_rng(1).normal(size=(2, 3, 3)).astype(np.float32)
  options = SearchOptions(
    jnp.int32(1 + steps),
    jnp.int32(0),
    length_penalty=jnp.float32(penalty),
    end_tokens=(end,),
    num_beams=width,
    early_stopping="never",
  )
  search = SearchContext(options, "cpu", vocab_size=3)

  state = beam.start(_texts(2, width, 1 + steps), None, keep_parents=False)
  for _ in range(steps):
    assert not state.done.any()
    state = _step(state, table, search)
  assert state.done.all()

  log_probs = np.asarray(jax.nn.log_softmax(table, axis=-1), np.float64)
  for row in range(2):
    texts = [
      (*middle, last)
      for length in range(steps)
      for middle in itertools.product((1, 2), repeat=length)
      for last in ((end,) if length < steps - 1 else (0, 1, 2))
    ]
    scores = [
      sum(log_probs[row, a, b] for a, b in itertools.pairwise((1, *text)))
      / len(text) ** penalty
      for text in texts
    ]
    best = np.argsort(-np.asarray(scores))[:width]
    finished = state.finished
    for place, index in enumerate(best):
      text = texts[index]
      assert finished.lengths[row, place] == 1 + len(text)
      np.testing.assert_array_equal(
        finished.tokens[row, place, 1 : 1 + len(text)], text
      )
    np.testing.assert_allclose(
      finished.scores[row], np.asarray(scores)[best], rtol=1e-5
    )


def test_merging_keeps_the_best_and_their_texts():
  def finished(scores):
    scores = np.array([scores], np.float32)
    numbers = scores.astype(np.int32)
    return beam.Finished(
      tokens=numbers[..., None],
      lengths=numbers,
      scores=scores,
      real=scores > 0,
      parents=None,
    )

  merged = jax.jit(beam.merge)(finished([5, 1]), finished([4, -3, 7, 2]))
  assert merged.scores.tolist() == [[7, 5]]
  assert merged.tokens.tolist() == [[[7], [5]]]
