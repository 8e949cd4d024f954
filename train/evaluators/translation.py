"""BLEU, chrF and TER of a corpus, by sacrebleu, with its signatures."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from train.evaluators.statistics import Statistics, Totals, Values

# Of sacrebleu's tokenizers, those that download nothing and need no other
# package.
TOKENIZERS = ("13a", "intl", "char", "zh", "none")
_ORDERS = 4


def bleu(
  predictions: Sequence[str],
  references: Sequence[str],
  *,
  tokenize: str,
  lowercase: bool,
) -> Statistics:
  """BLEU in points (Papineni et al. 2002), smoothed as sacrebleu does."""
  # It brings lxml, for which a start need not wait.
  from sacrebleu.metrics.bleu import BLEU

  metric = BLEU(tokenize=tokenize, lowercase=lowercase)
  return _measure(metric, predictions, references, bleu_of_totals)


def chrf(
  predictions: Sequence[str], references: Sequence[str], *, lowercase: bool
) -> Statistics:
  """chrF2 in points (Popovic 2015): n-grams of up to six characters."""
  from sacrebleu.metrics.chrf import CHRF

  metric = CHRF(lowercase=lowercase)
  return _measure(metric, predictions, references, chrf_of_totals)


def ter(predictions: Sequence[str], references: Sequence[str]) -> Statistics:
  """Edits over a hundred reference words (Snover et al. 2006), without case."""
  from sacrebleu.metrics.ter import TER

  return _measure(TER(), predictions, references, ter_of_totals)


def tokenizer(name: str) -> Any:
  """One of sacrebleu's tokenizers, which takes and gives a text."""
  from sacrebleu.metrics.bleu import BLEU

  return BLEU(tokenize=name).tokenizer


def _measure(
  metric: Any,
  predictions: Sequence[str],
  references: Sequence[str],
  of_totals: Any,
) -> Statistics:
  # Its bootstrap reads the same, which no public name gives; TER's test and
  # that of the others compare what comes out with its public scores.
  rows = metric._extract_corpus_statistics(predictions, [references])
  signature = str(metric.get_signature())
  return Statistics(np.array(rows, np.float64), of_totals, signature)


def bleu_of_totals(totals: Totals) -> Values:
  """sacrebleu's `BLEU.compute_bleu` of many corpora, by "exp" smoothing."""
  length, wanted = totals[..., 0], totals[..., 1]
  correct, total = totals[..., 2 : 2 + _ORDERS], totals[..., 2 + _ORDERS :]
  shorter = length < wanted
  penalty = np.where(
    shorter,
    np.exp(1 - wanted / np.where(shorter & (length > 0), length, 1.0)),
    1.0,
  )
  # An order without a match counts as half a match, the next such as a quarter.
  missed = correct == 0
  halved = np.exp2(-np.cumsum(missed, axis=-1))
  matched = np.where(missed, halved, correct)
  logs = np.log(100.0 * matched / np.maximum(total, 1.0))
  # A corpus without any n-gram of an order, or any match at all, has 0.
  zero = np.any(total == 0, axis=-1) | np.all(missed, axis=-1)
  return np.where(zero, 0.0, penalty * np.exp(logs.mean(axis=-1)))


def chrf_of_totals(totals: Totals) -> Values:
  """sacrebleu's chrF of many corpora, over the orders that both sides have."""
  counts = totals.reshape(*totals.shape[:-1], -1, 3)
  predicted, wanted, matched = (counts[..., i] for i in range(3))
  effective = (predicted > 0) & (wanted > 0)
  orders = np.maximum(effective.sum(axis=-1), 1)
  precision, recall = (
    np.where(effective, matched / np.maximum(of, 1.0), 0.0).sum(axis=-1)
    / orders
    for of in (predicted, wanted)
  )
  # Recall weighs twice what precision does.
  below = 4 * precision + recall
  score = 5 * precision * recall / np.where(below == 0, 1.0, below)
  return np.asarray(100.0 * score)


def ter_of_totals(totals: Totals) -> Values:
  edits, words = totals[..., 0], totals[..., 1]
  rate = np.where(words > 0, edits / np.where(words > 0, words, 1.0), edits > 0)
  return np.asarray(100.0 * rate)
