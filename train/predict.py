"""Prediction: a text for each source of a file: what --mode=predict does."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data import device, examples, sources
from train import command_line, datasets, decoding, trained, validate, workdir
from train.config import Config
from train.mesh import batch_sharding
from train.output import Output, digest
from train.trained import Trained

# "scheme:location@split", or a built-in set's "name@split".
URI = re.compile(r"(\w+:[^\\]|\w+@)")


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

  def read(self, start: int) -> Iterator[str]:
    """The lines from number `start`."""
    # A byte order mark may stand at the beginning of a file.
    with open(self.path, encoding="utf-8-sig", newline="\n") as file:
      for line in itertools.islice(file, start, None):
        yield line.rstrip("\r\n")


class Records:
  """One field of a source, in order."""

  def __init__(self, source: sources.Source, field: str):
    self.source = source
    self.field = field
    self.fingerprint = digest([source.fingerprint.encode(), field.encode()])

  def __len__(self) -> int:
    return len(self.source)

  def read(self, start: int) -> Iterator[str]:
    """The texts from number `start`."""
    for index in range(start, len(self.source)):
      yield self.source[index][self.field]


Inputs = TextFile | Records


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

  An object has `id` (its number among those that were read, from 0), `source`,
  `prediction` and `score`, the log-probability over length^length_penalty. A
  run that was killed goes on where it stopped; a finished one does nothing.

  Args:
    source: a .txt (a source a line), a .jsonl (with `data.source_field`), or
      a URI; it is read as it is predicted, never held.
    overwrite: replace an output made by other weights, settings or inputs.

  Returns:
    How many were predicted by this call.

  Raises:
    Refusal: there is no such checkpoint or input, or the output is another's.
  """
  with validate.refusing():
    _check_flags(source, output)
    inputs = open_inputs(source, config)
  this = trained.load(config, folder, step)
  with validate.refusing():
    file = Output(Path(output), fingerprint(this, inputs))
    size = decoding.rows_per_batch(config)
    done = file.open(overwrite=overwrite, total=len(inputs), unit=size)
  if done < len(inputs):
    with jax.set_mesh(this.mesh):
      for rows in predict(this, inputs, done):
        file.append(rows)
  file.finish()
  if jax.process_index() == 0:
    print(f"{len(inputs)} predictions of step {this.step} in {output}")
  return len(inputs) - done


def open_inputs(source: str, config: Config) -> Inputs:
  """The sources that `source` names.

  Raises:
    ValueError, OSError: it cannot be read, or a record lacks the field.
  """
  if not URI.match(source) and not Path(source).is_file():
    raise ValueError(f"--input={source}: there is no such file")
  if source.endswith(".txt") and not URI.match(source):
    return TextFile(source)
  uri = source if URI.match(source) else f"jsonl:{source}"
  field = config.data.source_field
  records = sources.open_source(
    uri, fields=[field], on_bad_record=config.data.on_bad_record
  )
  return Records(records, field)


def _check_flags(source: str, output: str) -> None:
  for flag, value, example in (
    ("input", source, "in.txt, in.jsonl or pydoc@test"),
    ("output", output, "out.jsonl"),
  ):
    if not value:
      raise validate.Refusal(f"--{flag} is missing: pass {example}")
  command_line.check_path("output", output)
  if Path(source).exists() and Path(source).resolve() == Path(output).resolve():
    raise validate.Refusal(f"--output={output} is the input: name another file")
  if not (source.endswith((".txt", ".jsonl")) or URI.match(source)):
    raise validate.Refusal(
      f"--input={source}: name a .txt, a .jsonl or a URI such as pydoc@test"
    )


def predict(this: Trained, inputs: Inputs, start: int) -> Iterator[list[dict]]:
  """Objects of `inputs[start:]`, a batch at a time, in order.

  Every process must exhaust it; all get the same.
  """
  config, task = this.config, this.task
  generator = decoding.TextGenerator(task, config, this.mesh)
  decoding_params = generator.prepare(this.params)
  size = decoding.rows_per_batch(config)
  sharding = batch_sharding(this.mesh, task.rules)
  rows = device.local_rows(sharding, size)
  texts_left = inputs.read(start)
  while chunk := list(itertools.islice(texts_left, size)):
    host = _sources(this, chunk, size)
    mine = {name: array[rows] for name, array in host.items()}
    batch = device.to_device(mine, rows, sharding, size)
    generated = generator.generate(decoding_params, batch)
    texts = generator.texts(generated, len(chunk))
    scores = generator.scores(this.params, batch, generated, len(chunk))
    yield [
      {"id": start + i, "source": chunk[i], "prediction": text, "score": score}
      for i, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]
    start += len(chunk)


def _sources(
  this: Trained, texts: Sequence[str], rows: int
) -> dict[str, np.ndarray]:
  """The encoder's arrays of a batch, in the smallest bucket that holds it."""
  tokenizer = this.task.source_tokenizer
  longest = this.config.data.max_source_length
  ids = [
    examples.truncate(encoded, longest, tokenizer.suffix)[0]
    for encoded in tokenizer.encode_batch(texts)
  ]
  lengths = sorted({source for source, _ in datasets.buckets(this.config)})
  needed = max(len(row) for row in ids)
  return examples.collate_sources(
    ids,
    length=next(length for length in lengths if length >= needed),
    pad_id=this.task.batch_tokens.source_pad,
    rows=rows,
  )


def fingerprint(this: Trained, inputs: Inputs) -> dict[str, Any]:
  """What decides an output."""
  settings = {
    key: value
    for key, value in workdir.plain(this.config).items()
    if key.startswith(
      ("generation.", "model.dtype", "data.max_", "data.source_buckets")
    )
  }
  return {
    "rows": decoding.rows_per_batch(this.config),
    "step": this.step,
    "weights": this.weights,
    "inputs": inputs.fingerprint,
    **settings,
  }
