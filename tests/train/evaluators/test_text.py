"""Scores of generated text."""

import numpy as np
import pytest

from train.evaluators import text


def test_known_scores():
  scores = text.score(
    ["the cat sat", "a dog", " same "], ["the cat ran", "the dogs", "same"]
  )
  np.testing.assert_array_equal(scores["exact_match"], [0.0, 0.0, 1.0])
  # Two of three words; the stemmer makes "dogs" one with "dog".
  np.testing.assert_allclose(scores["rouge1"], [200 / 3, 50.0, 100.0])
  np.testing.assert_allclose(scores["rouge2"], [50.0, 0.0, 0.0])


def test_a_missing_prediction_is_an_error():
  with pytest.raises(ValueError, match="1 predictions for 2 references"):
    text.score(["a"], ["a", "b"])
