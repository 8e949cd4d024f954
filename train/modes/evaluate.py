"""Evaluation of a trained model, printed: what --mode=eval does."""

from collections.abc import Mapping

import jax
from absl import logging

from train.config import Config
from train.errors import refusing
from train.evaluators.suite import Result, Suite, write_samples
from train.progress import goodput
from train.setting_names import naming
from train.setup import datasets, trained


def run(config: Config, folder: str, step: int = -1) -> dict[str, float]:
  """Measures a checkpoint on `data.test`, else on `data.eval`.

  Prints a few examples, then a line for each metric, then, with
  `eval.permute_sources`, what true sources are worth.

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
    )
  with jax.set_mesh(this.mesh):
    row, results = suite.run(this.params)
  try:
    write_samples(this.folder, this.step, results, suite.names)
  except OSError as error:
    # A folder that may only be read; what was measured is printed.
    logging.warning("the samples are not written: %s", error)
  if jax.process_index() == 0:
    for name in suite.names:
      _print_examples(results[name], config.eval.print_examples)
    print(f"\nstep {this.step} of {this.folder}")
    for name, value in row.items():
      print(f"{name} {value:.4f}")
    if config.eval.permute_sources:
      for name in suite.names:
        _print_gain(name, row)
    goodput.report(this.folder)
  return row


def _print_examples(result: Result, count: int) -> None:
  spread = max(1, len(result.samples) // max(1, count))
  for sample in result.samples[::spread][:count]:
    print(f"\nsource:     {' '.join(sample.source.split())[:300]}")
    print(f"target:     {sample.target}")
    print(f"prediction: {sample.prediction}")


def _print_gain(name: str, row: Mapping[str, float]) -> None:
  """The figures of the comparison side by side."""
  print(f"\n{name}: with its own sources, with permuted ones, gain (95%)")
  for metric in ("loss", "rougeL", "exact_match"):
    if f"eval/{name}_gain/{metric}" not in row:
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
