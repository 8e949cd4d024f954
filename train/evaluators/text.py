"""Scores of generated text: exact match and ROUGE, one value an example."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def score(
  predictions: Sequence[str], references: Sequence[str]
) -> dict[str, Float64[np.ndarray, " B"]]:
  """Per example: `exact_match` is 0 or 1, ROUGE F-measures are in points.

  ROUGE is that of Google's rouge-score package, with its stemmer. `rougeLsum`
  takes lines for sentences. Exact match ignores space at both ends.
  """
  if len(predictions) != len(references):
    raise ValueError(
      f"{len(predictions)} predictions for {len(references)} references: "
      "each needs its own"
    )
  # It brings nltk and scipy, for which a start need not wait.
  from rouge_score import rouge_scorer

  scorer = rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=True)
  rows = [
    scorer.score(reference, prediction)
    for prediction, reference in zip(predictions, references, strict=True)
  ]
  scores = {
    name: np.array([100.0 * row[name].fmeasure for row in rows])
    for name in ROUGE
  }
  exact = [
    float(prediction.strip() == reference.strip())
    for prediction, reference in zip(predictions, references, strict=True)
  ]
  return {"exact_match": np.array(exact), **scores}
