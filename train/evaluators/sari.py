"""SARI: what a simplification adds, keeps and deletes (Xu et al. 2016).

Two forms are in use, which differ by points: that of its authors' script, and
that of tensor2tensor, by which the papers of its users report.
"""

from collections import Counter
from collections.abc import Sequence

ORDERS = (1, 2, 3, 4)
FORMS = ("authors", "tensor2tensor")
Words = Sequence[str]


def sentence(
  source: Words,
  prediction: Words,
  references: Sequence[Words],
  form: str = "authors",
) -> float:
  """SARI of a sentence in points.

  The mean, over n-grams of one to four words, of the F-measures of what is
  added and kept and the precision of what is deleted.

  Args:
    source, prediction, references: words, in one case.
    form: "authors": as their script counts. A part of which there is nothing
      counts 0, so that a right sentence of a few words may have less than 100.
      "tensor2tensor": an n-gram counts once however often it stands in a text,
      and a part of which there is nothing counts 1.
  """
  parts = _parts if form == "authors" else _parts_of_tensor2tensor
  scores = [
    part
    for order in ORDERS
    for part in parts(
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


def _parts_of_tensor2tensor(
  source: Counter, prediction: Counter, references: Sequence[Counter]
) -> tuple[float, float, float]:
  """The scores of keeping, deleting and adding n-grams of an order.

  An n-gram of references weighs the share of those that have it: 1 where there
  is one. References without an n-gram of this order are passed over.
  """
  having = [ngrams for ngrams in references if ngrams]
  found = Counter(ngram for ngrams in having for ngram in ngrams)
  wanted = Counter({g: count / len(having) for g, count in found.items()})
  source, prediction, any_wanted = (
    Counter(ngrams.keys()) for ngrams in (source, prediction, wanted)
  )
  kept, right = source & prediction, source & wanted
  good = kept & right
  keep = _f_measure(_ratio(good, kept), _ratio(good, right))
  deleted = source - prediction
  delete = _ratio(deleted & (source - wanted), deleted)
  added, right = prediction - source, any_wanted - source
  good = added & right
  add = _f_measure(_ratio(good, added), _ratio(good, right))
  return keep, delete, add


def _ratio(good: Counter, of: Counter) -> float:
  return good.total() / of.total() if of else 1.0


def _share(good: Counter, of: Counter) -> float:
  """The mean, over n-grams of `of`, of the share of each that is good."""
  return sum(count / of[ngram] for ngram, count in good.items()) / max(
    len(of), 1
  )


def _f_measure(precision: float, recall: float) -> float:
  both = precision + recall
  return 2 * precision * recall / both if both else 0.0
