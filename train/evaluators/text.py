"""Metrics of generated text, by name: `eval.metrics` says which."""

import dataclasses
import difflib
import functools
import importlib.util
import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64

from train.config import Config
from train.evaluators import copying, rouge, sari, translation
from train.evaluators.statistics import Statistics, mean, ratio

_WORD = re.compile(r"\w+|[^\w\s]")
# Which of a metric's values are better, as `train.best_mode` says it: of those
# that are not here the greater ones.
LESS_IS_BETTER = ("loss", "ter")
# What describes a text, and makes it neither better nor worse.
_NEITHER = re.compile(r"length_ratio|copy_rate|novel_\d")


@dataclasses.dataclass(frozen=True)
class Texts:
  """Predicted texts, each with its source and its reference."""

  sources: Sequence[str]
  predictions: Sequence[str]
  references: Sequence[str]

  def __post_init__(self):
    counts = {len(self.sources), len(self.predictions), len(self.references)}
    if len(counts) > 1:
      raise ValueError(
        f"{len(self.predictions)} predictions for {len(self.references)} "
        f"references and {len(self.sources)} sources: each needs its own"
      )

  @functools.cached_property
  def copied(self) -> dict[int, Float64[np.ndarray, "B 2"]]:
    """See `copying.found`."""
    return copying.found(
      [words(text) for text in self.sources],
      [words(text) for text in self.predictions],
    )


@dataclasses.dataclass(frozen=True)
class TextMetrics:
  """Which metrics are measured, and how.

  Attributes:
    metrics: names of `METRICS`.
    rouge_stemmer: see `rouge.score`, as `rouge_sentences`.
    bleu_tokenize: of `translation.TOKENIZERS`; SARI's words too.
    sari_form: see `sari.sentence`.
    lowercase: of BLEU and chrF.
  """

  metrics: tuple[str, ...] = ("exact_match", "rouge")
  rouge_stemmer: bool = True
  rouge_sentences: str = "lines"
  bleu_tokenize: str = "13a"
  sari_form: str = "authors"
  lowercase: bool = False

  def __post_init__(self):
    for metric in self.metrics:
      if metric not in METRICS:
        names = difflib.get_close_matches(str(metric), METRICS, n=1)
        near = f"; did you mean {names[0]!r}?" if names else ""
        raise ValueError(
          f"eval.metrics = {self.metrics}: there is no metric {metric!r}"
          f"{near}; there are {', '.join(METRICS)}"
        )
      if self.metrics.count(metric) > 1:
        raise ValueError(
          f"eval.metrics = {self.metrics}: {metric!r} stands there twice"
        )
    for key, choices in (
      ("rouge_sentences", rouge.SENTENCES),
      ("bleu_tokenize", translation.TOKENIZERS),
      ("sari_form", sari.FORMS),
    ):
      if getattr(self, key) not in choices:
        raise ValueError(
          f"eval.{key} = {getattr(self, key)!r}: choose one of "
          f"{', '.join(choices)}"
        )
    if package := _missing_package(self.metrics):
      raise ValueError(
        f"eval.metrics = {self.metrics} needs the package {package}: pip "
        f"install -c constraints.txt {package}"
      )

  def measure(self, texts: Texts) -> dict[str, Statistics]:
    """The values of all metrics, by name, of the same examples."""
    values = {}
    for metric in self.metrics:
      values |= METRICS[metric](self, texts)
    return values


def configured(config: Config) -> TextMetrics:
  """What the section `eval` of a configuration says.

  Raises:
    ValueError: a name or a choice that there is not, or a package is missing.
  """
  names = [field.name for field in dataclasses.fields(TextMetrics)]
  return TextMetrics(**{name: config.eval[name] for name in names})


def _exact_match(_: TextMetrics, texts: Texts) -> dict[str, Statistics]:
  """Shares of 1; space at both ends is ignored."""
  pairs = zip(texts.predictions, texts.references, strict=True)
  same = [float(one.strip() == other.strip()) for one, other in pairs]
  return {"exact_match": mean(np.array(same))}


def _rouge(how: TextMetrics, texts: Texts) -> dict[str, Statistics]:
  return rouge.score(
    texts.predictions,
    texts.references,
    stemmer=how.rouge_stemmer,
    sentences=how.rouge_sentences,
  )


def _bleu(how: TextMetrics, texts: Texts) -> dict[str, Statistics]:
  measured = translation.bleu(
    texts.predictions,
    texts.references,
    tokenize=how.bleu_tokenize,
    lowercase=how.lowercase,
  )
  return {"bleu": measured}


def _chrf(how: TextMetrics, texts: Texts) -> dict[str, Statistics]:
  measured = translation.chrf(
    texts.predictions, texts.references, lowercase=how.lowercase
  )
  return {"chrf": measured}


def _ter(_: TextMetrics, texts: Texts) -> dict[str, Statistics]:
  return {"ter": translation.ter(texts.predictions, texts.references)}


def _sari(how: TextMetrics, texts: Texts) -> dict[str, Statistics]:
  """The mean over examples, without case."""
  divide = translation.tokenizer(how.bleu_tokenize)
  scores = [
    sari.sentence(source, prediction, [reference], how.sari_form)
    for source, prediction, reference in zip(
      *(
        [divide(text.lower().strip()).split() for text in side]
        for side in (texts.sources, texts.predictions, texts.references)
      ),
      strict=True,
    )
  ]
  signature = f"nrefs:1|case:lc|tok:{how.bleu_tokenize}|form:{how.sari_form}"
  return {"sari": mean(np.array(scores), signature)}


def _length_ratio(_: TextMetrics, texts: Texts) -> dict[str, Statistics]:
  """Words of all predictions over those of all references."""
  predicted, wanted = (
    np.array([float(len(words(text))) for text in side])
    for side in (texts.predictions, texts.references)
  )
  return {"length_ratio": ratio(predicted, wanted)}


def _copy_rate(_: TextMetrics, texts: Texts) -> dict[str, Statistics]:
  """Of all predicted n-grams of 1 to 4 words, those in the source, in %."""
  return {"copy_rate": _percent(np.sum([*texts.copied.values()], axis=0))}


def _novel(order: int) -> "Measure":
  """Predicted n-grams that are not in the source, in % (See et al. 2017)."""

  def measure(_: TextMetrics, texts: Texts) -> dict[str, Statistics]:
    copied, predicted = texts.copied[order].T
    novel = np.stack([predicted - copied, predicted], axis=1)
    return {f"novel_{order}": _percent(novel)}

  return measure


def _percent(counts: Float64[np.ndarray, "B 2"]) -> Statistics:
  return ratio(100.0 * counts[:, 0], counts[:, 1])


Measure = Callable[[TextMetrics, Texts], dict[str, Statistics]]
METRICS: dict[str, Measure] = {
  "exact_match": _exact_match,
  "rouge": _rouge,
  "bleu": _bleu,
  "chrf": _chrf,
  "ter": _ter,
  "sari": _sari,
  "length_ratio": _length_ratio,
  "copy_rate": _copy_rate,
  **{f"novel_{order}": _novel(order) for order in copying.ORDERS},
}
# Metrics with values of other names than their own.
_VALUES = {"rouge": rouge.NAMES}
# Packages of the extra `train` that a metric is computed by.
_PACKAGES = {
  "rouge": "rouge_score",
  **dict.fromkeys(("bleu", "chrf", "ter", "sari"), "sacrebleu"),
}
# Metrics that compare with the source.
OF_SOURCES = ("sari", "copy_rate", *(f"novel_{n}" for n in copying.ORDERS))


def words(text: str) -> list[str]:
  """Words and marks in lower case, where a metric has no rule of its own."""
  return _WORD.findall(text.lower())


def value_names(metrics: Sequence[str]) -> list[str]:
  """The names of all values that these metrics have."""
  return [
    value for metric in metrics for value in _VALUES.get(metric, (metric,))
  ]


def _missing_package(metrics: Sequence[str]) -> str:
  """A package that is not installed, of one of these metrics; or empty."""
  needed = {_PACKAGES[metric] for metric in metrics if metric in _PACKAGES}
  absent = (p for p in sorted(needed) if importlib.util.find_spec(p) is None)
  return next(absent, "")


def better(value: str) -> str:
  """ "min" or "max": which values are better; empty: neither are.

  Args:
    value: a metric's value, as `value_names` has it, or "loss", "accuracy".
  """
  if _NEITHER.fullmatch(value):
    return ""
  return "min" if value in LESS_IS_BETTER else "max"
