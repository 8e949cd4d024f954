"""ScoreRules that PyTorch does not have: trigrams of words."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.generation.search import options as options_lib
from encdec.generation.search.options import ScoreRules, SearchOptions
from encdec.generation.search.processors import repeats_words

# Tokens 0-3 begin a word, 4 and 5 continue one.
STARTS = np.array([True, True, True, True, False, False])


def _repeats(tokens: list[int]) -> bool:
  """BertSum's check, on words that are joined from their pieces."""
  words: list[tuple[int, ...]] = []
  for token in tokens:
    if STARTS[token] or not words:
      words.append((token,))
    else:
      words[-1] += (token,)
  if len(words) <= 3:
    return False
  trigrams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
  return trigrams[-1] in trigrams[:-1]


def test_word_trigrams_are_bertsums(seed):
  rng = np.random.default_rng(seed)
  tokens = rng.choice(6, (300, 2, 14), p=[0.5, 0.2, 0.0, 0.0, 0.25, 0.05])
  lengths = rng.integers(1, 15, 300)
  expected = np.array(
    [
      [_repeats(text[:length].tolist()) for text in row]
      for row, length in zip(tokens, lengths, strict=True)
    ]
  )
  assert 20 < expected.sum() < 580
  found = jax.jit(repeats_words, static_argnames="words")(
    jnp.asarray(tokens, jnp.int32),
    jnp.asarray(lengths, jnp.int32),
    jnp.asarray(STARTS),
    words=3,
  )
  np.testing.assert_array_equal(found, expected)


def test_word_trigrams_need_beams():
  options = SearchOptions(
    jnp.int32(9),
    jnp.int32(0),
    rules=ScoreRules(word_starts=jnp.asarray(STARTS)),
  )
  with pytest.raises(ValueError, match="word_starts drops beams"):
    options_lib.check(options, 6)
  options_lib.check(dataclasses.replace(options, num_beams=2), 6)
