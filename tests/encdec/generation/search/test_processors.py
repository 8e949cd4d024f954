"""ScoreRules that PyTorch does not have: trigrams of words."""

import jax
import jax.numpy as jnp
import numpy as np

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
