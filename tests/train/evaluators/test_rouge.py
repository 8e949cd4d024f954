"""ROUGE: rouge-score's own values, and the sentences of its Lsum."""

import numpy as np
import pytest
from rouge_score import rouge_scorer

from train.evaluators import rouge


@pytest.mark.parametrize("stemmer", [True, False])
def test_it_is_that_of_rouge_score(real_texts, stemmer):
  scorer = rouge_scorer.RougeScorer(list(rouge.NAMES), use_stemmer=stemmer)
  pairs = list(zip(real_texts.references, real_texts.predictions, strict=True))
  want = [scorer.score(*pair) for pair in pairs]
  got = rouge.score(
    real_texts.predictions,
    real_texts.references,
    stemmer=stemmer,
    sentences="lines",
  )
  assert got["rouge1"].signature.startswith(
    f"stemmer:{'porter' if stemmer else 'no'}|sentences:lines|rouge_score:"
  )
  for name in rouge.NAMES:
    values = [100 * row[name].fmeasure for row in want]
    np.testing.assert_allclose(got[name].rows[:, 0], values, atol=1e-9)
    np.testing.assert_allclose(got[name].value(), np.mean(values), atol=1e-9)
    assert 10 < got[name].value() < 90


def score(prediction, reference, **options):
  found = rouge.score(
    [prediction],
    [reference],
    **{"stemmer": False, "sentences": "lines"} | options,
  )
  return {name: one.value() for name, one in found.items()}


def test_the_stemmer_makes_forms_of_a_word_one():
  assert score("walked dogs", "walking dog", stemmer=True)["rouge1"] == 100
  # Words of three letters are left as they are.
  assert score("walked dogs", "walking dog")["rouge1"] == 0


def test_sentences_matter_to_lsum_alone():
  reference = "The cat sat. The dog ran."
  prediction = "The dog ran. The cat sat."
  lines = score(prediction, reference)
  parted = score(prediction, reference, sentences="split")
  assert lines["rougeLsum"] == lines["rougeL"] == 50
  assert parted["rougeLsum"] == 100
  for name in ("rouge1", "rouge2", "rougeL"):
    assert parted[name] == lines[name]
  # As with a sentence a line.
  newlines = [t.replace(". ", ".\n") for t in (prediction, reference)]
  assert score(*newlines)["rougeLsum"] == 100


@pytest.mark.parametrize(
  ("text", "sentences"),
  [
    ("", []),
    ("One", ["One"]),
    ("One. two! Three?", ["One.", "two!", "Three?"]),
    ("One.\n\nTwo", ["One.", "Two"]),
    ('He said "no." She left.', ['He said "no."', "She left."]),
    ("Mr. J. Smith of the u.s. left.", ["Mr. J. Smith of the u.s. left."]),
    ("It cost 3.5. more, vs. less.", ["It cost 3.5.", "more, vs. less."]),
    ("Wait... what?! No.", ["Wait...", "what?!", "No."]),
    ("see example.com for more.", ["see example.com for more."]),
  ],
)
def test_texts_are_split_without_capitals(text, sentences):
  assert rouge.split(text) == sentences
