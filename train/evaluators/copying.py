"""Copying: how many of the predicted n-grams stand in the source."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

ORDERS = (1, 2, 3, 4)
Words = Sequence[str]


def found(
  sources: Sequence[Words], predictions: Sequence[Words]
) -> dict[int, Float64[np.ndarray, "B 2"]]:
  """By order, of each example: predicted n-grams in its source, and all.

  An n-gram counts as often as it is predicted.
  """
  counts = {order: np.zeros((len(predictions), 2)) for order in ORDERS}
  for row, (source, prediction) in enumerate(
    zip(sources, predictions, strict=True)
  ):
    for order in ORDERS:
      there = set(_ngrams(source, order))
      predicted = _ngrams(prediction, order)
      copied = sum(ngram in there for ngram in predicted)
      counts[order][row] = copied, len(predicted)
  return counts


def _ngrams(words: Words, order: int) -> list[tuple[str, ...]]:
  return [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]
