"""BLEU, chrF and TER: sacrebleu's own scores of corpora of every kind."""

import numpy as np
import pytest

from train.evaluators import translation

sacrebleu = pytest.importorskip("sacrebleu")
METRICS = {
  "bleu": (
    lambda *texts: translation.bleu(*texts, tokenize="13a", lowercase=False),
    lambda: sacrebleu.BLEU(),
  ),
  "bleu_lowercase": (
    lambda *texts: translation.bleu(*texts, tokenize="intl", lowercase=True),
    lambda: sacrebleu.BLEU(tokenize="intl", lowercase=True),
  ),
  "chrf": (
    lambda *texts: translation.chrf(*texts, lowercase=False),
    lambda: sacrebleu.CHRF(),
  ),
  "ter": (translation.ter, lambda: sacrebleu.TER()),
}
CORPORA = {
  "nothing predicted": ([""], ["a b c"]),
  "no reference": (["a b"], [""]),
  "neither": ([""], [""]),
  "no match": (["a b c d e"], ["v w x y z"]),
  "short": (["a b"], ["a b"]),
  "no match of an order": (["a b x c d y"], ["a b u c d v"]),
  "too short": (["a b c d"], ["a b c d e f g"]),
  "too long": (["a b c d e f g"], ["a b c d"]),
  "perfect": (["a b c d e f"], ["a b c d e f"]),
  "one empty of two": (["", "a b c d e"], ["a b", "a b c d f"]),
}


@pytest.mark.parametrize("metric", METRICS)
def test_real_pairs_have_the_scores_of_sacrebleu(metric, real_texts):
  ours, theirs = METRICS[metric]
  predictions, references = real_texts.predictions, real_texts.references
  reference = theirs()
  want = reference.corpus_score(predictions, [references])
  got = ours(predictions, references)
  np.testing.assert_allclose(got.value(), want.score, rtol=1e-12, atol=1e-9)
  assert 20 < got.value() < 80
  assert got.signature == str(reference.get_signature())
  assert f"version:{sacrebleu.__version__}" in got.signature


@pytest.mark.parametrize("metric", METRICS)
def test_resamples_have_the_scores_of_sacrebleu(metric, real_texts):
  """What the bootstrap measures: sums of drawn rows, many at once."""
  ours, theirs = METRICS[metric]
  predictions, references = real_texts.predictions, real_texts.references
  got = ours(predictions, references)
  drawn = np.random.default_rng(0).integers(200, size=(4, 5))
  totals = got.rows[drawn].sum(axis=1)
  want = [
    theirs()
    .corpus_score([predictions[i] for i in d], [[references[i] for i in d]])
    .score
    for d in drawn
  ]
  np.testing.assert_allclose(got.of_totals(totals), want, atol=1e-9)


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("metric", METRICS)
def test_corpora_at_the_edge_have_the_scores_of_sacrebleu(metric, corpus):
  ours, theirs = METRICS[metric]
  predictions, references = CORPORA[corpus]
  want = theirs().corpus_score(predictions, [references]).score
  np.testing.assert_allclose(
    ours(predictions, references).value(), want, atol=1e-9
  )


@pytest.mark.parametrize("name", translation.TOKENIZERS)
def test_tokenizers_need_nothing_that_is_not_there(name):
  assert translation.tokenizer(name)("A b.").replace(" ", "") == "Ab."
  found = translation.bleu(["A b."], ["A b."], tokenize=name, lowercase=False)
  assert f"tok:{name}|" in found.signature
