"""Scores of a file of predictions: what --mode=eval --predictions= does."""

from pathlib import Path

import jax

from data import sources
from train import validate
from train.config import Config
from train.errors import Refusal, refusing
from train.evaluators import bootstrap, samples, text
from train.evaluators.samples import Sample
from train.modes import scored_file
from train.modes.evaluate import print_examples, print_row
from train.setting_names import naming

# What the file is called where no set is named.
ALONE = "predictions"


def run(config: Config, predictions: str) -> dict[str, float]:
  """Prints each metric of `eval.metrics` with its 95% interval.

  The targets and sources are those of the first set of `data.test`, else of
  `data.eval`, or of the one that is named; where there is none, the file's own.
  Nothing is read of a run, and nothing is compiled.

  Args:
    predictions: "file.jsonl", or "set=file.jsonl" with a set's name.

  Raises:
    Refusal: the file and the set do not fit, or one cannot be read.
  """
  with refusing():
    validate.check_ranges(validate.flatten(config), "eval.")
    metrics = text.configured(config)
    name, uri, path = _chosen(config, predictions)
    lines = scored_file.read(path, config.data.target_field)
    scored = _scored(config, lines, path, uri, metrics)
  statistics = metrics.measure(samples.texts(scored))
  ends = bootstrap.intervals(
    statistics, samples=config.eval.bootstrap_samples, seed=config.seed
  )
  row = {}
  for metric, one in statistics.items():
    key = f"eval/{name}/{metric}"
    low, high = ends[metric]
    row |= {key: one.value(), f"{key}_low": low, f"{key}_high": high}
  if jax.process_index() == 0:
    print_examples(scored, config.eval.print_examples)
    left = len(lines) - len(scored)
    why = "beyond eval.text_examples, or of a blank source"
    rest = f"; {left} more are not scored: {why}" if left else ""
    print(f"\n{len(scored)} predictions of {path}{rest}")
    print_row(row, samples.signatures(statistics))
  return row


def _chosen(config: Config, predictions: str) -> tuple[str, str, Path]:
  """Name and URI of the set, empty where there is none, and the file."""
  sets: dict[str, str] = {}
  for key, bare in (("data.test", "test"), ("data.eval", "valid")):
    with naming(key, config.data[key.partition(".")[2]]):
      named = sources.parse_eval(config.data[key.partition(".")[2]], bare)
    sets = {**sets, **{k: v for k, v in named.items() if k not in sets}}
  name, equals, rest = predictions.partition("=")
  if equals and name in sets:
    return name, sets[name], Path(rest)
  if equals and name.isidentifier() and not Path(predictions).exists():
    raise Refusal(
      f"--predictions={predictions}: there is no set {name!r}"
      f"{validate.suggest(name, list(sets))}; there are "
      f"{', '.join(sets) or 'none'}"
    )
  first = next(iter(sets), "")
  return first or ALONE, sets.get(first, ""), Path(predictions)


def _scored(
  config: Config,
  lines: list[scored_file.Line],
  path: Path,
  uri: str,
  metrics: text.TextMetrics,
) -> list[Sample]:
  if not uri:
    of_sources = set(text.OF_SOURCES) & set(metrics.metrics)
    return scored_file.alone(lines, path, sources=bool(of_sources))
  fields = config.data.source_field, config.data.target_field
  records = sources.open_source(
    uri,
    fields=fields,
    on_bad_record=config.data.on_bad_record,
    all_fields=True,
  )
  return scored_file.match(
    lines,
    path,
    records,
    source_field=fields[0],
    target_field=fields[1],
    examples=config.eval.text_examples,
  )
