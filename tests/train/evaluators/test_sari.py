"""SARI: its authors' examples, and the formulas written out."""

import numpy as np
import pytest

from train.evaluators import sari

SOURCE = "About 95 species are currently accepted ."
REFERENCES = (
  "About 95 species are currently known .",
  "About 95 species are now accepted .",
  "95 species are now accepted .",
)


@pytest.mark.parametrize(
  ("prediction", "score"),
  [
    ("About 95 you now get in .", 26.82782411698074),
    ("About 95 species are now agreed .", 58.89995423074248),
    ("About 95 species are currently agreed .", 50.71608864657479),
  ],
)
def test_the_examples_of_its_authors(prediction, score):
  source, prediction, *references = (
    text.lower().split() for text in (SOURCE, prediction, *REFERENCES)
  )
  got = sari.sentence(source, prediction, references)
  assert got == pytest.approx(score, abs=1e-9)


def by_formula(source, prediction, reference):
  """For one reference, from counts of every n-gram that there is."""
  total = 0.0
  for n in (1, 2, 3, 4):
    lists = [
      [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
      for words in (source, prediction, reference)
    ]
    every = sorted({ngram for ngrams in lists for ngram in ngrams})
    of_source, of_output, of_reference = (
      {ngram: ngrams.count(ngram) for ngram in every} for ngrams in lists
    )
    precision, recall = [], []
    for g in every:
      kept = min(of_source[g], of_output[g])
      right = min(of_source[g], of_reference[g])
      if kept:
        precision.append(min(kept, of_reference[g]) / kept)
      if right:
        recall.append(min(kept, right) / right)
    p, r = (sum(x) / len(x) if x else 0.0 for x in (precision, recall))
    total += 2 * p * r / (p + r) if p + r else 0.0
    deleted = []
    for g in every:
      gone = of_source[g] - of_output[g]
      if gone > 0:
        deleted.append(max(gone - of_reference[g], 0) / gone)
    total += sum(deleted) / len(deleted) if deleted else 0.0
    added = [g for g in every if of_output[g] and not of_source[g]]
    right = [g for g in every if of_reference[g] and not of_source[g]]
    good = len([g for g in added if of_reference[g]])
    p, r = good / max(len(added), 1), good / max(len(right), 1)
    total += 2 * p * r / (p + r) if p + r else 0.0
  return 100 * total / 12


def by_tensor2tensor(source, prediction, reference):
  """For one reference, from sets of n-grams; nothing of nothing is all."""

  def precision(good, selected):
    return len(good) / len(selected) if selected else 1.0

  def f1(good, selected, relevant):
    p, r = precision(good, selected), precision(good, relevant)
    return 2 * p * r / (p + r) if p > 0 and r > 0 else 0.0

  adds, keeps, deletes = [], [], []
  for n in (1, 2, 3, 4):
    s, p, t = (
      {" ".join(words[i : i + n]) for i in range(len(words) + 1 - n)}
      for words in (source, prediction, reference)
    )
    adds.append(f1((p - s) & t, p - s, t - s))
    keeps.append(f1(s & p & t, s & p, s & t))
    deletes.append(precision((s - p) & (s - t), s - p))
  return 100 * (sum(adds) / 4 + sum(keeps) / 4 + sum(deletes) / 4) / 3


@pytest.mark.parametrize(
  ("form", "formula"),
  [("authors", by_formula), ("tensor2tensor", by_tensor2tensor)],
)
def test_real_pairs_have_the_formula_s_score(real_texts, form, formula):
  sides = (real_texts.sources, real_texts.predictions, real_texts.references)
  rows = [
    [text.lower().split() for text in row] for row in zip(*sides, strict=True)
  ]
  assert len(rows) == 200
  got = [sari.sentence(*row[:2], row[2:], form) for row in rows]
  np.testing.assert_allclose(got, [formula(*row) for row in rows], atol=1e-9)
  # Unlike each other, and unlike what the source itself would get.
  assert np.std(got) > 5
  sources = [sari.sentence(s, s, [r], form) for s, _, r in rows]
  assert not np.allclose(got, sources)


def test_a_perfect_prediction_has_all_points_in_tensor2tensors_form(real_texts):
  sides = (real_texts.sources, real_texts.references)
  rows = [[text.split() for text in row] for row in zip(*sides, strict=True)]
  rows += [(["a", "b"], ["a"]), (["a"], ["a"]), ([], [])]
  for source, reference in rows:
    got = sari.sentence(source, reference, [reference], "tensor2tensor")
    assert got == pytest.approx(100)
  # Of its authors' form a short sentence has less.
  assert sari.sentence(["a"], ["a"], [["a"]]) < 50


def test_references_of_tensor2tensor_weigh_by_those_that_have_an_ngram():
  got = sari.sentence(["a", "b"], ["a"], [["a"], ["b"], ["c"]], "tensor2tensor")
  # Kept: 1/3 of 1 and of 2/3. Deleted: 2/3 of 1, and the pair, which no
  # reference has. Added: none of the one that is wanted. Pairs: of nothing all.
  keep = 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)
  total = keep + 3 + 2 / 3 + 3 + 0 + 3
  assert got == pytest.approx(100 * total / 12)
