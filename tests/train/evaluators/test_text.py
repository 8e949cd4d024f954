"""Metrics of generated text, by their names."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from configs import common
from train.evaluators import sari, text
from train.evaluators.text import TextMetrics, Texts


def values(predictions, references, sources=None, **options):
  texts = Texts(sources or references, predictions, references)
  measured = TextMetrics(**options).measure(texts)
  return {name: one.value() for name, one in measured.items()}


def test_what_is_measured_where_nothing_is_said():
  texts = Texts(
    [""] * 3,
    ["the cat sat", "a dog", " same "],
    ["the cat ran", "the dogs", "same"],
  )
  scores = text.configured(common.get_config()).measure(texts)
  assert list(scores) == [
    "exact_match", "rouge1", "rouge2", "rougeL", "rougeLsum",
  ]  # fmt: skip
  rows = {name: one.rows[:, 0] for name, one in scores.items()}
  np.testing.assert_array_equal(rows["exact_match"], [0.0, 0.0, 1.0])
  # Two of three words; the stemmer makes "dogs" one with "dog".
  np.testing.assert_allclose(rows["rouge1"], [200 / 3, 50.0, 100.0])
  np.testing.assert_allclose(rows["rouge2"], [50.0, 0.0, 0.0])


def test_the_default_is_that_of_the_configuration():
  assert text.configured(common.get_config()) == TextMetrics()


def test_a_missing_prediction_is_an_error():
  with pytest.raises(ValueError, match="1 predictions for 2 references"):
    Texts(["a", "b"], ["a"], ["a", "b"])


def test_each_metric_has_the_values_that_it_promises(real_texts):
  texts = Texts(
    *(
      side[:20]
      for side in (
        real_texts.sources, real_texts.predictions, real_texts.references
      )
    )
  )  # fmt: skip
  for metric in text.METRICS:
    measured = TextMetrics(metrics=(metric,)).measure(texts)
    assert list(measured) == text.value_names([metric])
    for one in measured.values():
      assert len(one.rows) == 20 and np.isfinite(one.value())
  assert set(text.OF_SOURCES) <= set(text.METRICS)


def test_copying_and_novelty_are_shares_of_all_that_is_predicted():
  got = values(
    ["A b, x", "b"],
    ["a", "b"],
    ["a b , c", "c"],
    metrics=("length_ratio", "copy_rate", "novel_1", "novel_2", "novel_4"),
  )
  # a b , x: three of four words, and of their n-grams two of three, one of
  # two, none of one; none of b.
  assert got == {
    "length_ratio": 5 / 2,
    "copy_rate": 100 * 6 / 11,
    "novel_1": 100 * 2 / 5,
    "novel_2": pytest.approx(100 / 3),
    "novel_4": 100.0,
  }


def test_options_reach_their_metrics():
  upper, lower = ["A DOG SAT HERE"], ["a dog sat here"]
  for metric in ("bleu", "chrf"):
    assert values(upper, lower, metrics=(metric,))[metric] < 20
    got = values(upper, lower, metrics=(metric,), lowercase=True)
    assert got[metric] == pytest.approx(100)
  for metric in ("sari", "ter"):
    same = [values(t, lower, metrics=(metric,)) for t in (upper, lower)]
    assert same[0] == same[1]
  joined, apart = ["one two three four."], ["one two three four ."]
  for metric in ("bleu", "sari"):
    by = {
      name: values(joined, apart, metrics=(metric,), bleu_tokenize=name)
      for name in ("13a", "none")
    }
    assert by["13a"][metric] > by["none"][metric] + 10
  same = ["one two"], ["one two"], ["one three two"]
  forms = [
    values(*same, metrics=("sari",), sari_form=form)["sari"]
    for form in sari.FORMS
  ]
  assert forms[0] < forms[1] == pytest.approx(100)
  texts = ["One two. Three four."], ["Three four. One two."]
  lines, split = values(*texts), values(*texts, rouge_sentences="split")
  assert lines["rougeLsum"] < split["rougeLsum"] == 100
  stems = values(["walked"], ["walking"])
  assert (stems["rouge1"], stems["rouge2"]) == (100, 0)
  assert values(["walked"], ["walking"], rouge_stemmer=False)["rouge1"] == 0


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"metrics": ("blue",)}, "eval.metrics = .*did you mean 'bleu'"),
    ({"metrics": ("x",)}, "'x'; there are exact_match, rouge, bleu"),
    ({"metrics": ("bleu", "bleu")}, "'bleu' stands there twice"),
    ({"rouge_sentences": "dots"}, "rouge_sentences = 'dots': choose .*split"),
    ({"sari_form": "t2t"}, "sari_form = 't2t': .*authors, tensor2tensor"),
    ({"bleu_tokenize": "flores"}, "bleu_tokenize = 'flores': .*intl, char"),
  ],
)
def test_what_there_is_not_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    TextMetrics(**options)


def test_a_package_that_is_missing_is_named(monkeypatch):
  monkeypatch.setattr(text.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match=r"needs .*sacrebleu: pip install"):
    TextMetrics(metrics=("exact_match", "ter"))
  assert TextMetrics(metrics=("exact_match", "novel_2"))


def test_no_package_is_imported_before_it_is_needed():
  names = {field.name for field in dataclasses.fields(TextMetrics)}
  assert names <= set(common.get_config().eval)
  code = "import train.evaluators.text, sys; print(*sys.modules)"
  loaded = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  ).stdout.split()
  assert "train.evaluators.text" in loaded
  assert not {"rouge_score", "nltk", "sacrebleu", "lxml"} & set(loaded)


def test_which_values_are_better():
  assert [text.better(name) for name in ("loss", "ter")] == ["min"] * 2
  assert [text.better(name) for name in ("bleu", "accuracy")] == ["max"] * 2
  assert text.better("copy_rate") == text.better("novel_3") == ""
