"""What a run will see, in figures and examples: what --mode=inspect does."""

import dataclasses
import operator
from pathlib import Path

import jax
import numpy as np

from data import inspection, row_text, sources
from data.inspection import Lengths
from data.mixture import Mixture
from data.pipeline import Pipeline
from data.store.pairs import encode_pairs
from data.tokenizers import round_trip
from train import validate
from train.config import Config
from train.errors import refusing
from train.setup import datasets, target_check
from train.setup.task import Task, build_task
from train.workdir import run_lock

_EXAMPLES = 5
# The greatest maximum length there may be.
_WHOLE = 1 << 20


def run(config: Config, folder: str) -> None:
  """Prints examples, lengths, fills and a shape for packed rows.

  Tokenizers are made as training makes them, or are those of the run that
  began in `folder`. Nothing is compiled, no device is used.

  Raises:
    Refusal: the configuration cannot be run, or a set cannot be read.
  """
  path = Path(folder)
  with refusing(), run_lock.held(path, until_begun=True):
    validate.check_values(config)
    datasets.check(config, path)
    task = build_task(config, path)
    pairs = datasets.train_pairs(config, task, path)
    pipeline = datasets.train_pipeline(config, pairs, path)
    if jax.process_index() == 0:
      print(_examples(pipeline, task))
      print(_figures(config, *_measure(config, task, pairs)))
      print(f"\n{_written(config, task, pairs)}")


def _examples(pipeline: Pipeline, task: Task) -> str:
  """The first rows of training."""
  parts = []
  for number in range(_EXAMPLES):
    step, row = divmod(number, pipeline.batch_size)
    text = row_text.row_text(
      pipeline.batch(step), row, task.source_tokenizer, task.target_tokenizer
    )
    parts.append(f"-- row {row} of the batch of step {step}\n{text}")
  return "\n".join(parts)


def _written(config: Config, task: Task, pairs: Mixture) -> str:
  """Whether the target tokenizer can write the targets, and what to do."""
  trips = target_check.measure(config, task, pairs)
  said = target_check.advice(config, task, trips)
  lines = [round_trip.describe(trips), f"warning: {said}" if said else ""]
  return "\n".join(filter(None, lines))


def _measure(config: Config, task: Task, pairs: Mixture) -> tuple[Lengths, int]:
  """Lengths without truncation, of a sample, and the records there are.

  Of a mixture each source has its share of the sample.
  """
  shares = sources.parse_mixture(config.data.train)
  opened = [part.source for part in pairs.parts]
  sizes = [len(source) for source in opened]
  size = min(inspection.SAMPLE, *map(operator.truediv, sizes, shares.values()))
  every = [
    _lengths(config, task, inspection.Sample(source, round(size * share) or 1))
    for source, share in zip(opened, shares.values(), strict=True)
  ]
  return Lengths(
    np.concatenate([lengths.source for lengths in every]),
    np.concatenate([lengths.target for lengths in every]),
  ), sum(sizes)


def _lengths(config: Config, task: Task, source: sources.Source) -> Lengths:
  whole = dataclasses.replace(
    datasets.encoding(config, task),
    max_source_length=_WHOLE,
    max_target_length=_WHOLE,
  )
  pairs = encode_pairs(source, whole)
  every = np.arange(len(pairs), dtype=np.int64)
  return Lengths(pairs.source_lengths(every), pairs.target_lengths(every))


def _figures(config: Config, lengths: Lengths, records: int) -> str:
  data, seed = config.data, config.seed
  longest = (data.max_source_length, data.max_target_length)
  cut = lengths.cut(longest)
  sides = [
    inspection.side("source", lengths.source, longest[0]),
    inspection.side("target", lengths.target, longest[1]),
  ]
  buckets = datasets.buckets(config)
  row = datasets.pack_shape(config)
  names = ", ".join(f"{s} x {t}" for s, t in buckets)
  size = config.train.batch_size
  fills = [
    (
      f"all rows {longest[0]} x {longest[1]}",
      inspection.fill_padded(cut, longest),
    ),
    (
      f"none: {names}",
      inspection.fill_batches(cut, buckets, size, seed),
    ),
    (f"bucket: {names}", inspection.fill_buckets(cut, buckets)),
    (f"pack: {row[0]} x {row[1]}", inspection.fill_packed(cut, row, seed)),
  ]
  enough = (sides[0].enough, sides[1].enough)
  suggested = [
    inspection.suggest_rows(lengths, each, seed)
    for each in dict.fromkeys((longest, enough))
  ]
  return "\n\n".join(
    [
      f"{data.train}: {len(lengths)} pairs measured, of {records} records",
      *map(inspection.side_text, sides),
      inspection.fills_text(fills),
      "rows that packing fills best, for these maximum lengths and for those "
      f"that truncate at most {inspection.CUT:.0%}",
      *map(inspection.rows_text, suggested),
    ]
  )
