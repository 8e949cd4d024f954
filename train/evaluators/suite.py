"""The suite: every held-out set through every evaluator, as one row."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float64

from data.pipeline import EvalBatch, eval_batches
from data.store.pairs import Pairs
from encdec.generation import programs
from encdec.types import Params
from train.config import Config
from train.evaluators import loss, permuted, text
from train.mesh import batch_sharding
from train.setting_names import naming
from train.setup import datasets
from train.setup.task import Task
from train.state import TrainState
from train.step import jit_eval_step
from train.text_generator import GenerationRequest, TextGenerator
from train.workdir import json_files


@dataclasses.dataclass(frozen=True)
class Sample:
  """One generated text beside its reference."""

  id: int
  source: str
  target: str
  prediction: str


@dataclasses.dataclass(frozen=True)
class Result:
  """What a set gave, example by example."""

  losses: loss.Losses
  scores: Mapping[str, Float64[np.ndarray, " B"]]
  samples: list[Sample]

  def metrics(self) -> dict[str, float]:
    means = {name: float(np.mean(s)) for name, s in self.scores.items()}
    return self.losses.metrics() | means


class Suite:
  """Evaluates parameters on `sets`; use it inside `jax.set_mesh(mesh)`.

  `shardings` are those of the stored parameters. All processes call
  it alike, and all get the same metrics. With `permute_sources` each set is
  measured twice and compared.
  """

  def __init__(
    self,
    config: Config,
    task: Task,
    mesh: Mesh,
    shardings: Params,
    sets: Mapping[str, Pairs],
    permute_sources: bool = False,
  ):
    self.config = config
    self.sets = {
      name: _with_text(pairs, config) for name, pairs in sets.items()
    }
    self.permute_sources = permute_sources
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
    row = {
      f"eval/{name}/{metric}": value
      for name, result in results.items()
      for metric, value in result.metrics().items()
    }
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
    samples = self._samples(decoding_params, chosen)
    scores = text.score(
      [sample.prediction for sample in samples],
      [sample.target for sample in samples],
    )
    return Result(losses, scores, samples)

  def _samples(self, decoding_params: Params, pairs: Pairs) -> list[Sample]:
    """The text of each pair's source beside its target, in their order."""
    sources = (GenerationRequest(i, pairs[i].source) for i in range(len(pairs)))
    texts = {}
    found = self.generator.generate(decoding_params, sources, call=self.call)
    for generated in found:
      texts[generated.key] = generated.texts[0]
      self.check()
    samples = []
    for index in range(len(pairs)):
      record = pairs.record(index)
      samples.append(
        Sample(
          int(pairs.records[index]),
          record[self.config.data.source_field],
          record[self.config.data.target_field],
          texts[index],
        )
      )
    return samples

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
    true, other = results[name], results[f"{name}_permuted"]
    options = {
      "samples": self.config.eval.bootstrap_samples,
      "seed": self.config.seed,
    }
    gains = {
      "loss": permuted.gain(
        other.losses.nats, true.losses.nats, true.losses.weights, **options
      )
    }
    for metric, scores in true.scores.items():
      gains[metric] = permuted.gain(
        scores, other.scores[metric], np.ones(len(scores)), **options
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


def write_samples(
  folder: Path, step: int, results: Mapping[str, Result], names: Sequence[str]
) -> None:
  """samples/<set>-<step>.jsonl, from the first process."""
  if jax.process_index() != 0:
    return
  for name in names:
    samples = results[name].samples
    lines = [json.dumps(dataclasses.asdict(s)) + "\n" for s in samples]
    if lines:
      path = folder / "samples" / f"{name}-{step:08d}.jsonl"
      json_files.write_text(path, "".join(lines))
