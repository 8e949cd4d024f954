"""ROUGE: F-measures of n-grams and common subsequences, by rouge-score.

As papers have it: PEGASUS and Rothe et al. give rouge-score's, with its stemmer
and a sentence a line; BertSum gives ROUGE-1.5.5's, with the same stemmer, and
what it calls ROUGE-L is of the summary's sentences: rougeLsum.
"""

import importlib.metadata
import re
from collections.abc import Sequence

import numpy as np

from train.evaluators.statistics import Statistics, mean

NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
# How rougeLsum gets sentences: a line is one, or texts are split at full stops.
SENTENCES = ("lines", "split")
# A full stop after one of these ends no sentence.
_ABBREVIATIONS = frozenset(
  "capt col dr etc fig gen gov hon inc jan feb mar apr aug sept oct nov dec jr "
  "lt ltd mr mrs ms ph.d prof rep rev sen sgt sr st vs".split()
)
_INITIALS = re.compile(r"[a-z](\.[a-z])*")
_END = re.compile(r"(\S*?)([.!?]+[\"'\u2019\u201d)\]]*)(?=\s|$)")


def score(
  predictions: Sequence[str],
  references: Sequence[str],
  *,
  stemmer: bool,
  sentences: str,
) -> dict[str, Statistics]:
  """ROUGE-1, -2, -L and -Lsum in points, each the mean over the examples.

  Args:
    stemmer: Porter's, on words of more than three letters; ROUGE-1.5.5's -m.
    sentences: "lines" or "split"; of rougeLsum alone.
  """
  # It brings nltk and scipy, for which a start need not wait.
  from rouge_score import rouge_scorer

  scorer = rouge_scorer.RougeScorer(list(NAMES), use_stemmer=stemmer)
  rows = []
  for prediction, reference in zip(predictions, references, strict=True):
    texts = [reference, prediction]
    if sentences == "split":
      # Line ends divide words as spaces do: the others see no difference.
      texts = ["\n".join(split(text)) for text in texts]
    rows.append(scorer.score(*texts))
  version = importlib.metadata.version("rouge_score")
  stems = "porter" if stemmer else "no"
  signature = f"stemmer:{stems}|sentences:{sentences}|rouge_score:{version}"
  return {
    name: mean(
      np.array([100.0 * row[name].fmeasure for row in rows]), signature
    )
    for name in NAMES
  }


def split(text: str) -> list[str]:
  """The sentences of a text, by rules that need no model and no capitals.

  One ends at its line's end, and after ".", "!" or "?" before a space, except
  after an abbreviation or an initial ("u.s.", "mr.", "J.").
  """
  sentences = []
  for line in text.split("\n"):
    start = 0
    for match in _END.finditer(line):
      word = match[1].lstrip("\"'(\u2018\u201c[").lower()
      short = word in _ABBREVIATIONS or _INITIALS.fullmatch(word)
      if short and match[2] == ".":
        continue
      sentences.append(line[start : match.end()].strip())
      start = match.end()
    sentences.append(line[start:].strip())
  return [sentence for sentence in sentences if sentence]
