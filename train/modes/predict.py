"""Prediction: a text for each source of a file: what --mode=predict does."""

import collections
import contextlib
import dataclasses
import itertools
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import tqdm
from absl import logging

from data import examples, sources
from data.digests import digest
from data.schemes.file_extensions import EXTENSIONS, uri_of
from train import processes, text_generator, validate
from train.cli import paths
from train.cli.setting_names import naming
from train.config import Config
from train.modes.prediction_file import FOUND, Output
from train.setup import trained
from train.setup.trained import Trained
from train.text_generator import Found, Source
from train.workdir import recorded_config

# Batches of sources that are sorted by length together. What was found out of
# order when a run is killed, less than that many, is found again.
WINDOW = 16
# Texts that are tokenised together.
_TOKENIZED = 64

# "scheme:location@split", or a built-in set's "name@split".
URI = re.compile(r"(\w+:[^\\]|\w+@)")


@dataclasses.dataclass(frozen=True)
class Input:
  """A source to predict.

  Attributes:
    number: among those that are read, from 0.
    given: what its object in the output holds beside what is found.
  """

  number: int
  text: str
  given: Mapping[str, Any]


class TextFile:
  """The lines of a file, in order; the file is read twice, never held."""

  def __init__(self, path: str):
    """Raises ValueError, naming it, for a line that is not UTF-8."""
    self.path = path
    lines = [0]
    self.fingerprint = digest(self._checked(lines))
    self.size = lines[0]

  def _checked(self, lines: list[int]) -> Iterator[bytes]:
    with open(self.path, "rb") as file:
      for line in file:
        lines[0] += 1
        try:
          line.decode("utf-8")
        except UnicodeDecodeError as error:
          raise ValueError(
            f"{self.path}: line {lines[0]} is not UTF-8 ({error.reason}); "
            "convert the file"
          ) from error
        yield line

  def __len__(self) -> int:
    return self.size

  def read(self, start: int) -> Iterator[Input]:
    """The lines from number `start`."""
    # A byte order mark may stand at the beginning of a file.
    with open(self.path, encoding="utf-8-sig", newline="\n") as file:
      # What is added to the file meanwhile was not counted.
      lines = itertools.islice(file, start, self.size)
      for number, line in enumerate(lines, start):
        text = line.rstrip("\r\n")
        yield Input(number, text, {"id": number, "source": text})


class Records:
  """The records of a source, in order, one field of which is predicted."""

  def __init__(self, source: sources.Source, field: str):
    self.source = source
    self.field = field
    self.fingerprint = digest((source.fingerprint, field, "all fields"))

  def __len__(self) -> int:
    return len(self.source)

  def read(self, start: int) -> Iterator[Input]:
    """The records from number `start`."""
    for number in range(start, len(self.source)):
      record = self.source[number]
      given = _given(number, record, self.field)
      yield Input(number, record[self.field], given)


Inputs = TextFile | Records
Row = Found[Input]


def _given(number: int, record: Mapping[str, Any], field: str) -> dict:
  """What the object of a record holds beside what is found.

  Args:
    field: the one that is predicted.
  """
  others = {name: value for name, value in record.items() if name != field}
  own = others.pop("id", None)
  given = {"id": number if own in (None, "") else own, "source": record[field]}
  ours = {*given, *FOUND}
  taken = ours | set(others)
  for name, value in others.items():
    free = name
    while name in ours and free in taken:
      free = f"input_{free}"
    taken.add(free)
    given[free] = value
  return given


def run(
  config: Config,
  folder: str,
  *,
  step: int = -1,
  source: str,
  output: str,
  overwrite: bool = False,
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

  Returns:
    How many were predicted by this call.

  Raises:
    Refusal: there is no such checkpoint or input, or the output is another's.
  """
  with validate.refusing():
    _check_flags(source, output)
    with naming("--input"):
      inputs = open_inputs(source, config)
  this = trained.load(config, folder, step)
  with validate.refusing():
    made_by = fingerprint(this, inputs)
    processes.check_same(f"--input={source}", json.dumps(made_by))
    file = Output(Path(output), made_by)
  with contextlib.closing(file):
    with validate.refusing():
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


def open_inputs(source: str, config: Config) -> Inputs:
  """The sources that `source` names.

  Raises:
    ValueError, OSError: it cannot be read, or a record lacks the field.
  """
  uri = source if URI.match(source) else uri_of(source)
  if uri != source and not Path(source).is_file():
    raise ValueError(f"--input={source}: there is no such file")
  if not uri:
    return TextFile(source)
  field = config.data.source_field
  records = sources.open_source(
    uri,
    fields=[field],
    on_bad_record=config.data.on_bad_record,
    all_fields=True,
  )
  return Records(records, field)


def _check_flags(source: str, output: str) -> None:
  for flag, value, example in (
    ("input", source, "in.txt, in.jsonl or pydoc@test"),
    ("output", output, "out.jsonl"),
  ):
    if not value:
      raise validate.Refusal(f"--{flag} is missing: pass {example}")
  paths.check_path("output", output)
  with naming("--input"):
    read = sources.files_of(source) if URI.match(source) else [source]
  if Path(output).resolve() in [Path(path).resolve() for path in read]:
    raise validate.Refusal(f"--output={output} is the input: name another file")
  if not (source.endswith(".txt") or URI.match(source) or uri_of(source)):
    raise validate.Refusal(
      f"--input={source}: name a file that ends in .txt, "
      f"{', '.join(EXTENSIONS)}, or a URI such as pydoc@test"
    )


def predict(this: Trained, inputs: Inputs, start: int) -> Iterator[dict]:
  """Objects of `inputs[start:]`, in order.

  Every process must exhaust it; all get the same.
  """
  generator = text_generator.TextGenerator(this.task, this.config, this.mesh)
  several = _returned(this) > 1
  early: dict[int, Row] = {}
  counts = collections.Counter()
  found = generator.generate(
    generator.decoding_params(this.params),
    _sources(this, inputs, start, early, counts),
    window=WINDOW * generator.rows,
  )
  for row in _in_order(found, start, early):
    scores = [s if math.isfinite(s) else None for s in row.scores]
    prediction = list(row.texts) if several else row.texts[0]
    score = scores if several else scores[0]
    given = row.key.given
    # In this order; the record's other fields are last.
    ours = dict.fromkeys(("id", "source"))
    yield {**ours, "prediction": prediction, "score": score, **given}
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
) -> Iterator[Source[Input]]:
  """Sources as ids; empty ones are in `early`, truncated ones in `counts`."""
  tokenizer = this.task.source_tokenizer
  empty = len(tokenizer.prefix) + len(tokenizer.suffix)
  nothing = ("",) * _returned(this)
  longest = this.config.data.max_source_length
  read = inputs.read(start)
  while chunk := list(itertools.islice(read, _TOKENIZED)):
    encoded = tokenizer.encode_batch([one.text for one in chunk])
    for one, ids in zip(chunk, encoded, strict=True):
      if len(ids) <= empty:
        logging.warning("source %d is empty: so is its prediction", one.number)
        scores = (math.nan,) * len(nothing)
        early[one.number] = Found(one, nothing, scores)
        continue
      kept, truncated = examples.truncate(ids, longest, tokenizer.suffix)
      counts["truncated"] += bool(truncated)
      yield Source(one, kept)


def _in_order(
  found: Iterator[Row], start: int, early: dict[int, Row]
) -> Iterator[Row]:
  """By their numbers, from `start`; `early` holds those that wait for others.

  All of them have come when `found` ends.
  """
  for row in itertools.chain(found, [None]):
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
