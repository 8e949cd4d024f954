"""Texts against lists of Python: their tokens, and who wrote what they read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.generation.search import hypotheses

ROWS, BEAMS, SLOTS, PAD = 2, 3, 6, 9


def _start(prompt, visible, *, reorder=True, origin=None):
  return hypotheses.start(
    jnp.asarray(prompt, jnp.int32),
    jnp.asarray(visible),
    width=BEAMS,
    slots=SLOTS,
    pad_token=jnp.int32(PAD),
    reorder=reorder,
    origin=None if origin is None else jnp.int32(origin),
  )


@pytest.mark.parametrize("origin", [0, 4])
def test_a_text_reads_what_its_own_ancestors_wrote(seed, origin):
  """Over the ring of slots, whoever it continues; only as far as it is."""
  rng = np.random.default_rng(seed)
  texts = _start([[7], [8]], np.ones((ROWS, 1), bool), origin=origin)
  tokens = [[[7]] * BEAMS, [[8]] * BEAMS]
  # Of each text, the beams that wrote its slots, in the order of its tokens.
  wrote = [[[beam] for beam in range(BEAMS)] for _ in range(ROWS)]
  append = jax.jit(hypotheses.append)

  @jax.jit
  def look(texts, slot):
    return hypotheses.view(texts, slot), hypotheses.last_tokens(texts)

  for step in range(SLOTS):
    slot = (origin + step) % SLOTS
    view, read = look(texts, np.int32(slot))
    expected = np.zeros((ROWS, BEAMS, SLOTS, BEAMS), bool)
    for row, beam in np.ndindex(ROWS, BEAMS):
      for place, owner in enumerate(wrote[row][beam]):
        expected[row, beam, (origin + place) % SLOTS, owner] = True
    np.testing.assert_array_equal(
      view.visible, expected.reshape(ROWS, BEAMS, -1)
    )
    assert (view.query_positions == step).all()
    assert (view.key_positions[:, slot] == step).all()
    last = [[text[-1] for text in row] for row in tokens]
    np.testing.assert_array_equal(read, last)

    parents = rng.integers(0, BEAMS, (ROWS, BEAMS), np.int32)
    new = rng.integers(0, 7, (ROWS, BEAMS), np.int32)
    texts = append(texts, parents, new, np.int32((slot + 1) % SLOTS))
    for row in range(ROWS):
      tokens[row] = [
        tokens[row][parent] + [int(token)]
        for parent, token in zip(parents[row], new[row], strict=True)
      ]
      wrote[row] = [
        wrote[row][parent] + [beam] for beam, parent in enumerate(parents[row])
      ]
  np.testing.assert_array_equal(texts.tokens, tokens)
  assert texts.length.tolist() == [SLOTS + 1] * ROWS


def test_a_prompt_is_the_first_texts_and_its_padding_is_not_read():
  visible = np.array([[True] * 3, [False, True, True]])

  @functools.partial(jax.jit, static_argnames="reorder")
  def begun(reorder):
    texts = _start([[1, 2, 3], [0, 4, 5]], visible, reorder=reorder)
    return texts, hypotheses.view(texts, jnp.int32(2))

  texts, view = begun(True)
  seen = np.asarray(view.visible).reshape(ROWS, BEAMS, SLOTS, BEAMS)
  np.testing.assert_array_equal(seen[:, :, 0, 0], [[True] * 3, [False] * 3])
  assert seen[:, :, 1, 0].all() and not seen[:, :, :2, 1:].any()
  # The last token of the prompt is each text's own; after it there is none.
  np.testing.assert_array_equal(seen[0, :, 2], np.eye(BEAMS, dtype=bool))
  assert not seen[:, :, 3:].any()
  assert (texts.tokens[:, :, 3:] == PAD).all()
  alone, view = begun(False)
  assert alone.separate_beams and view.separate_beams
  np.testing.assert_array_equal(view.visible[1, 0], [0, 1, 1, 0, 0, 0])
