"""Prediction: a text for each source of a file: what --mode=predict does."""

import collections
import contextlib
import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import tqdm
from absl import logging

from data import examples, sentences, sources
from data.schemes.file_extensions import EXTENSIONS, uri_of
from train import text_generator
from train.cli import paths
from train.config import Config
from train.errors import Refusal, refusing
from train.modes.prediction_file import Fields, Output
from train.modes.prediction_inputs import URI, Input, Inputs, open_inputs
from train.processes import agreement
from train.setting_names import naming
from train.setup import trained
from train.setup.trained import Trained
from train.text_generator import GeneratedTexts, GenerationRequest
from train.workdir import recorded_config

# Batches of sources that are sorted by length together. What was found out of
# order when a run is killed, less than that many, is found again.
WINDOW = 16
# Texts that are tokenised together.
_TOKENIZED = 64


def run(
  config: Config,
  folder: str,
  *,
  step: int = -1,
  source: str,
  output: str,
  overwrite: bool = False,
  training_pairs: bool = False,
) -> int:
  """Writes one JSON object a source to `output`, in the order of `source`.

  An object has `id` (the record's own, else its number among those that were
  read, from 0), `source`, `prediction` and `score`, the log-probability over
  the length's penalty; with `generation.num_return_sequences` above 1 these two
  are lists. The record's other fields follow as `records.as_json` writes them,
  one called like these as `input_<name>`. A source that has no token has an
  empty prediction, whose score is null. A run that was killed goes on where it
  stopped; a finished one does nothing.

  Args:
    source: a .txt (a source a line), a file whose extension tells its scheme,
      or a URI (with `data.source_field`); it is read as it is predicted, never
      held.
    overwrite: replace an output made by other weights, settings or inputs.
    training_pairs: `data.source_field` and `data.target_field` are the names of
      source and prediction, so that another run trains on the output
      (sequence-level distillation, Kim and Rush 2016). An empty source is
      written too, for lines are counted when a run goes on; that other run
      passes over it by `data.on_bad_record=skip`.

  Returns:
    How many were predicted by this call.

  Raises:
    Refusal: there is no such checkpoint or input, or the output is another's.
  """
  with refusing():
    fields = _of_pairs(config) if training_pairs else Fields()
    _check_flags(source, output)
    with naming("--input"):
      inputs = open_inputs(source, config, fields)
  this = trained.load(config, folder, step)
  with refusing():
    if training_pairs and _returned(this) > 1:
      raise Refusal(
        "--training_pairs: a source has one target; set "
        "generation.num_return_sequences=1, which takes the best of the beams"
      )
    made_by = fingerprint(this, inputs)
    if training_pairs:
      made_by |= {"fields": dataclasses.astuple(fields)}
    agreement.check_same(f"--input={source}", json.dumps(made_by))
    file = Output(Path(output), made_by, fields)
  with contextlib.closing(file):
    with refusing():
      done = file.open(
        overwrite=overwrite,
        total=len(inputs),
        given=(one.given for one in inputs.read(0)),
      )
    if done < len(inputs):
      with jax.set_mesh(this.mesh), _bar(len(inputs), done) as bar:
        file.append(_counted(predict(this, inputs, done), bar))
    file.finish()
  if jax.process_index() == 0:
    print(f"{len(inputs)} predictions of step {this.step} in {output}")
  return len(inputs) - done


def _of_pairs(config: Config) -> Fields:
  """The names by which a run reads its pairs."""
  fields = Fields(config.data.source_field, config.data.target_field)
  if taken := {"id", "score"} & {fields.source, fields.prediction}:
    raise Refusal(
      f"--training_pairs writes a field {taken.pop()!r} of its own: give "
      "data.source_field and data.target_field other names"
    )
  return fields


def _check_flags(source: str, output: str) -> None:
  for flag, value, example in (
    ("input", source, "in.txt, in.jsonl or pydoc@test"),
    ("output", output, "out.jsonl"),
  ):
    if not value:
      raise Refusal(f"--{flag} is missing: pass {example}")
  paths.check_path("output", output)
  with naming("--input"):
    read = sources.files_of(source) if URI.match(source) else [source]
  if Path(output).resolve() in [Path(path).resolve() for path in read]:
    raise Refusal(f"--output={output} is the input: name another file")
  if not (source.endswith(".txt") or URI.match(source) or uri_of(source)):
    raise Refusal(
      f"--input={source}: name a file that ends in .txt, "
      f"{', '.join(EXTENSIONS)}, or a URI such as pydoc@test"
    )


Row = GeneratedTexts[Input]


def predict(this: Trained, inputs: Inputs, start: int) -> Iterator[dict]:
  """Objects of `inputs[start:]`, in order, with the names of `inputs.fields`.

  Every process must exhaust it; all get the same.
  """
  generator = text_generator.TextGenerator(this.task, this.config, this.mesh)
  several, fields = _returned(this) > 1, inputs.fields
  early: dict[int, Row] = {}
  counts = collections.Counter()
  results = generator.generate(
    generator.decoding_params(this.params),
    _sources(this, inputs, start, early, counts),
    window=WINDOW * generator.rows,
  )
  for row in _in_order(results, start, early):
    scores = [s if math.isfinite(s) else None for s in row.scores]
    prediction = list(row.texts) if several else row.texts[0]
    score = scores if several else scores[0]
    given = row.key.given
    # In this order; the record's other fields are last.
    ours = dict.fromkeys(("id", fields.source))
    yield {**ours, fields.prediction: prediction, "score": score, **given}
  if counts["truncated"] and jax.process_index() == 0:
    logging.warning(
      "%d of the %d sources that were predicted now are longer than "
      "data.max_source_length = %d: they were truncated",
      counts["truncated"],
      len(inputs) - start,
      this.config.data.max_source_length,
    )


def _returned(this: Trained) -> int:
  """Texts a source."""
  settings = this.task.generation_settings(this.config)
  return settings.options["num_return_sequences"]


def _bar(total: int, done: int) -> tqdm.tqdm:
  return tqdm.tqdm(
    total=total,
    initial=done,
    disable=jax.process_index() != 0 or not sys.stderr.isatty(),
    unit="source",
    dynamic_ncols=True,
  )


def _counted(rows: Iterator[dict], bar: tqdm.tqdm) -> Iterator[dict]:
  for row in rows:
    yield row
    bar.update()


def _sources(
  this: Trained,
  inputs: Inputs,
  start: int,
  early: dict[int, Row],
  counts: collections.Counter[str],
) -> Iterator[GenerationRequest[Input]]:
  """Sources as ids; empty ones are in `early`, truncated ones in `counts`."""
  tokenizer, tokens = this.task.source_tokenizer, this.task.batch_tokens
  empty = len(tokenizer.prefix) + len(tokenizer.suffix)
  nothing = ("",) * _returned(this)
  longest = this.config.data.max_source_length
  read = inputs.read(start)
  while chunk := list(itertools.islice(read, _TOKENIZED)):
    texts = [one.text for one in chunk]
    encoded = sentences.encode_sources(tokenizer, texts, tokens)
    for one, ids in zip(chunk, encoded, strict=True):
      if len(ids) <= empty:
        logging.warning("source %d is empty: so is its prediction", one.number)
        scores = (math.nan,) * len(nothing)
        early[one.number] = GeneratedTexts(one, nothing, scores)
        continue
      source, truncated = examples.truncate(ids, longest, tokenizer.suffix)
      counts["truncated"] += bool(truncated)
      yield GenerationRequest(one, source)


def _in_order(
  results: Iterator[Row], start: int, early: dict[int, Row]
) -> Iterator[Row]:
  """By their numbers, from `start`; `early` holds those that wait for others.

  All of them have come when `results` ends.
  """
  for row in itertools.chain(results, [None]):
    if row is not None:
      early[row.key.number] = row
    while start in early:
      yield early.pop(start)
      start += 1


def fingerprint(this: Trained, inputs: Inputs) -> dict[str, Any]:
  """What decides an output."""
  settings = {
    key: value
    for key, value in recorded_config.json_values(this.config).items()
    if key.startswith(("generation.", "model.dtype", "data.max_"))
  }
  # As they come to be, whether the config or a saved pair sets them.
  options = this.task.generation_settings(this.config).options
  settings |= {f"generation.{name}": value for name, value in options.items()}
  return {
    "step": this.step,
    "weights": this.weights,
    "inputs": inputs.fingerprint,
    **settings,
  }
