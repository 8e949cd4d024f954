"""The suite: every held-out set through every evaluator, as one row."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from data.pipeline import EvalBatch, eval_batches
from data.store.pairs import Pairs
from encdec.generation import programs
from encdec.types import Params
from train.config import Config
from train.evaluators import bootstrap, loss, permuted, samples, text
from train.evaluators.samples import Sample
from train.evaluators.statistics import Statistics
from train.mesh import batch_sharding
from train.setting_names import naming
from train.setup import datasets
from train.setup.task import Task
from train.state import TrainState
from train.step import jit_eval_step
from train.text_generator import GenerationRequest, TextGenerator


@dataclasses.dataclass(frozen=True)
class Result:
  """What a set gave, example by example."""

  losses: loss.Losses
  scores: Mapping[str, Statistics]
  samples: list[Sample]

  def statistics(self) -> dict[str, Statistics]:
    return self.losses.statistics() | dict(self.scores)

  def metrics(self) -> dict[str, float]:
    return {name: one.value() for name, one in self.statistics().items()}

  def intervals(self, count: int, seed: int) -> dict[str, float]:
    """`<metric>_low` and `_high`: 95% intervals by `count` resamples."""
    ends = {}
    # Text may be of fewer examples than losses are.
    for group in (self.losses.statistics(), self.scores):
      found = bootstrap.intervals(group, samples=count, seed=seed)
      for metric, (low, high) in found.items():
        ends |= {f"{metric}_low": low, f"{metric}_high": high}
    return ends


class Suite:
  """Evaluates parameters on `sets`; use it inside `jax.set_mesh(mesh)`.

  `shardings` are those of the stored parameters. All processes call
  it alike, and all get the same metrics. With `permute_sources` each set is
  measured twice and compared; with `intervals` each metric has one.
  """

  def __init__(
    self,
    config: Config,
    task: Task,
    mesh: Mesh,
    shardings: Params,
    sets: Mapping[str, Pairs],
    permute_sources: bool = False,
    intervals: bool = False,
  ):
    self.config = config
    self.sets = {
      name: _with_text(pairs, config) for name, pairs in sets.items()
    }
    self.permute_sources, self.intervals = permute_sources, intervals
    self.text_metrics = text.configured(config)
    self.check: Callable[[], None] = lambda: None
    self.call: Callable[..., Any] = programs.call
    if permute_sources:
      for name, pairs in sets.items():
        with naming("eval.permute_sources", True):
          other = pairs.permute_sources(config.seed)
        self.sets[f"{name}_permuted"] = _with_text(other, config)
    self.names = list(sets)
    rules = task.rules
    self.sharding = batch_sharding(mesh, rules)
    self.eval_step = jit_eval_step(
      module=task.module,
      mesh=mesh,
      rules=rules,
      shardings=TrainState(step=None, params=shardings, opt_state=None),
      loss_chunks=config.train.loss_chunks,
    )
    self.generator = TextGenerator(task, config, mesh)

  def run(
    self,
    params: Params,
    *,
    check: Callable[[], None] = lambda: None,
    call: Callable[..., Any] = programs.call,
  ) -> tuple[dict[str, float], dict[str, Result]]:
    """A row of `eval/<set>/<metric>`, and each set's result.

    Args:
      check: called by all processes alike, every batch and text; an exception
        of it ends the evaluation.
      call: calls every program, as of `generate_stream`.
    """
    self.check, self.call = check, call
    decoding_params = None
    if any(chosen is not None for _, chosen in self.sets.values()):
      decoding_params = call(self.generator.decoding_params, params)
    results = {
      name: self._evaluate(params, decoding_params, *pairs)
      for name, pairs in self.sets.items()
    }
    row = {}
    for name, result in results.items():
      values = result.metrics()
      if self.intervals:
        evaluation = self.config.eval
        values |= result.intervals(
          evaluation.bootstrap_samples, self.config.seed
        )
      row |= {f"eval/{name}/{metric}": v for metric, v in values.items()}
    if self.permute_sources:
      for name in self.names:
        for metric, gain in self._gains(results, name).items():
          row[f"eval/{name}_gain/{metric}"] = gain.value
          row[f"eval/{name}_gain/{metric}_low"] = gain.low
          row[f"eval/{name}_gain/{metric}_high"] = gain.high
    return row, results

  def _evaluate(
    self,
    params: Params,
    decoding_params: Params | None,
    pairs: Pairs,
    chosen: Pairs | None,
  ) -> Result:
    step = functools.partial(self.call, self.eval_step)
    losses = loss.measure(step, params, self._batches(pairs))
    if chosen is None or decoding_params is None:
      return Result(losses, {}, [])
    generated = self._samples(decoding_params, chosen)
    scores = self.text_metrics.measure(samples.texts(generated))
    return Result(losses, scores, generated)

  def _samples(self, decoding_params: Params, pairs: Pairs) -> list[Sample]:
    """The text of each pair's source beside its target, in their order."""
    sources = (GenerationRequest(i, pairs[i].source) for i in range(len(pairs)))
    texts = {}
    streamed = self.generator.generate(decoding_params, sources, call=self.call)
    for generated in streamed:
      texts[generated.key] = generated.texts[0]
      self.check()
    found = []
    for index in range(len(pairs)):
      record = pairs.record(index)
      found.append(
        Sample(
          int(pairs.records[index]),
          record[self.config.data.source_field],
          record[self.config.data.target_field],
          texts[index],
        )
      )
    return found

  def _batches(self, pairs: Pairs) -> Iterator[EvalBatch]:
    for batch in eval_batches(
      pairs,
      self.generator.rows,
      datasets.buckets(self.config),
      sharding=self.sharding,
    ):
      self.check()
      yield batch

  def _gains(
    self, results: Mapping[str, Result], name: str
  ) -> dict[str, permuted.Gain]:
    """How much better true sources are, each in its metric's own direction."""
    true = results[name].statistics()
    other = results[f"{name}_permuted"].statistics()
    gains = {}
    for metric in true:
      pair = true[metric], other[metric]
      gains[metric] = permuted.gain(
        *(reversed(pair) if text.better(metric) == "min" else pair),
        samples=self.config.eval.bootstrap_samples,
        seed=self.config.seed,
      )
    return gains


def _with_text(pairs: Pairs, config: Config) -> tuple[Pairs, Pairs | None]:
  """The pairs, and those of them whose text is generated."""
  wanted = config.eval.text_examples
  if wanted < 0:
    return pairs, None
  if wanted == 0 or wanted >= len(pairs):
    return pairs, pairs
  # Spread over the set: neighbours are often alike.
  spread = np.arange(wanted, dtype=np.int64) * len(pairs) // wanted
  return pairs, pairs.take(spread)
