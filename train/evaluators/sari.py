"""SARI: what a simplification adds, keeps and deletes (Xu et al. 2016)."""

from collections import Counter
from collections.abc import Sequence

ORDERS = (1, 2, 3, 4)
Words = Sequence[str]


def sentence(source: Words, prediction: Words, references: Sequence[Words]):
  """SARI of a sentence in points, as its authors' script computes it.

  The mean, over n-grams of one to four words, of the F-measures of what is
  added and kept and the precision of what is deleted. A part of which there is
  nothing counts 0, so that a right sentence of a few words may have less than
  100.

  Args:
    source, prediction, references: words, in one case.
  """
  scores = [
    part
    for order in ORDERS
    for part in _parts(
      _ngrams(source, order),
      _ngrams(prediction, order),
      [_ngrams(words, order) for words in references],
    )
  ]
  return 100.0 * sum(scores) / len(scores)


def _ngrams(words: Words, order: int) -> Counter[tuple[str, ...]]:
  return Counter(
    tuple(words[i : i + order]) for i in range(len(words) - order + 1)
  )


def _parts(
  source: Counter, prediction: Counter, references: Sequence[Counter]
) -> tuple[float, float, float]:
  """The scores of keeping, deleting and adding n-grams of an order."""
  wanted = Counter()
  for one in references:
    wanted += one
  # The references' counts are compared with as many copies of the others'.
  copies = len(references)
  source, prediction = (
    Counter({ngram: count * copies for ngram, count in ngrams.items()})
    for ngrams in (source, prediction)
  )
  kept, right = source & prediction, source & wanted
  good = kept & right
  keep = _f_measure(_share(good, kept), _share(good, right))
  deleted = source - prediction
  delete = _share(deleted - wanted, deleted)
  added, right = set(prediction) - set(source), set(wanted) - set(source)
  good = len(added & right)
  add = _f_measure(good / max(len(added), 1), good / max(len(right), 1))
  return keep, delete, add


def _share(good: Counter, of: Counter) -> float:
  """The mean, over n-grams of `of`, of the share of each that is good."""
  return sum(count / of[ngram] for ngram, count in good.items()) / max(
    len(of), 1
  )


def _f_measure(precision: float, recall: float) -> float:
  both = precision + recall
  return 2 * precision * recall / both if both else 0.0
