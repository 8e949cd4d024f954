"""Evaluation of a trained model, printed: what --mode=eval does."""

import math
from collections.abc import Mapping, Sequence

import jax
from absl import logging

from train.config import Config
from train.errors import refusing
from train.evaluators import samples
from train.evaluators.suite import Result, Suite
from train.progress import goodput
from train.setting_names import naming
from train.setup import datasets, trained
from train.setup.trained import Trained
from train.workdir import json_files


def run(config: Config, folder: str, step: int = -1) -> dict[str, float]:
  """Measures a checkpoint on `data.test`, else on `data.eval`.

  Prints a few examples, then a line for each metric with its 95% interval,
  then, with `eval.permute_sources`, what true sources are worth. All texts, and
  what was printed, are kept in `predictions/`.

  Raises:
    Refusal: there is no such checkpoint, or a set cannot be read.
  """
  this = trained.load(config, folder, step)
  with refusing():
    key, text, bare = "data.eval", config.data.eval, "valid"
    if config.data.test:
      key, text, bare = "data.test", config.data.test, "test"
    with naming(key):
      sets = datasets.held_out(config, this.task, this.folder, text, bare)
    suite = Suite(
      config,
      this.task,
      this.mesh,
      this.shardings,
      sets,
      permute_sources=config.eval.permute_sources,
      intervals=True,
    )
  with jax.set_mesh(this.mesh):
    row, results = suite.run(this.params)
  signatures = {}
  for result in results.values():
    signatures |= samples.signatures(result.scores)
  try:
    _keep(this, suite, row, results, signatures)
  except OSError as error:
    # A folder that may only be read; what was measured is printed.
    logging.warning("the predictions are not written: %s", error)
  if jax.process_index() == 0:
    for name in suite.names:
      print_examples(results[name].samples, config.eval.print_examples)
    print(f"\nstep {this.step} of {this.folder}")
    print_row(row, signatures)
    if config.eval.permute_sources:
      for name in suite.names:
        _print_gain(name, row)
    goodput.report(this.folder)
  return row


def _keep(
  this: Trained,
  suite: Suite,
  row: Mapping[str, float],
  results: Mapping[str, Result],
  signatures: Mapping[str, str],
) -> None:
  """predictions/<set>-<step>.jsonl, and metrics-<step>.json beside them."""
  folder = this.folder / samples.EVALUATION
  texts = {name: results[name].samples for name in suite.names}
  samples.write(folder, this.step, texts)
  if jax.process_index() == 0:
    metrics = {k: v if math.isfinite(v) else None for k, v in row.items()}
    kept = {"step": this.step, "weights": this.weights, "metrics": metrics}
    json_files.write_json(
      folder / f"metrics-{this.step:08d}.json",
      kept | {"signatures": dict(signatures)},
    )


def print_row(row: Mapping[str, float], signatures: Mapping[str, str]) -> None:
  """A line for each metric, its interval beside it; then how it is computed."""
  for name, value in row.items():
    if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in row:
      continue
    line = f"{name} {value:.4f}"
    if f"{name}_low" in row:
      line += f" ({row[f'{name}_low']:.4f} to {row[f'{name}_high']:.4f})"
    print(line)
  # Metrics that are computed together have one.
  alike: dict[str, list[str]] = {}
  for metric, signature in signatures.items():
    alike.setdefault(signature, []).append(metric)
  for signature, metrics in alike.items():
    print(f"signature of {', '.join(metrics)}: {signature}")


def print_examples(texts: Sequence[samples.Sample], count: int) -> None:
  """So many of the texts, spread over the set."""
  spread = max(1, len(texts) // max(1, count))
  for sample in texts[::spread][:count]:
    print(f"\nsource:     {' '.join(sample.source.split())[:300]}")
    print(f"target:     {sample.target}")
    print(f"prediction: {sample.prediction}")


def _print_gain(name: str, row: Mapping[str, float]) -> None:
  """The figures of the comparison side by side."""
  print(f"\n{name}: with its own sources, with permuted ones, gain (95%)")
  prefix = f"eval/{name}_gain/"
  gains = [key.removeprefix(prefix) for key in row if key.startswith(prefix)]
  for metric in gains:
    if metric.endswith(("_low", "_high")):
      continue
    true = row[f"eval/{name}/{metric}"]
    other = row[f"eval/{name}_permuted/{metric}"]
    gain, low, high = (
      row[f"eval/{name}_gain/{metric}{end}"] for end in ("", "_low", "_high")
    )
    print(
      f"  {metric:<12}{true:9.3f}{other:9.3f}{gain:9.3f} "
      f"({low:.3f} to {high:.3f})"
    )
