"""A file of predictions that are only scored: read, and matched with a set."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.io.error_text import DAMAGE, fault, few, quoted
from data.sources import Source
from train.errors import Refusal
from train.evaluators.samples import Sample


@dataclasses.dataclass(frozen=True)
class Line:
  """A prediction, with what its line says of where it belongs.

  Attributes:
    id: the line's number, from 0, where it has none.
  """

  id: str
  prediction: str
  source: str | None
  target: str | None


def read(path: Path, target_field: str = "target") -> list[Line]:
  """The lines of a file such as --mode=predict writes.

  Of a `prediction` that is a list it is the first. Whatever else a line has
  beside `id`, `source` and `target` is passed over.

  Args:
    target_field: a record's, which predictions keep; `target` where there is
      none.

  Raises:
    Refusal: there is no such file, or a line is no prediction.
  """
  lines = []
  try:
    with open(path, "rb") as file:
      for number, raw in enumerate(file):
        lines.append(
          _line(f"{path}, line {number + 1}", number, raw, target_field)
        )
  except OSError as error:
    raise Refusal(
      f"--predictions={path} cannot be read ({error.strerror}): name a .jsonl"
    ) from error
  if not lines:
    raise Refusal(f"--predictions={path} is empty: it has no line to score")
  return lines


def _line(where: str, number: int, raw: bytes, target_field: str) -> Line:
  try:
    values = json.loads(raw)
    prediction = values["prediction"]
    prediction = prediction[0] if type(prediction) is list else prediction
  except (*DAMAGE, IndexError) as error:
    raise Refusal(
      f"{where} is no prediction ({fault(error)}): write an object with the "
      "field 'prediction', a text or a list of some"
    ) from error
  target = values.get(target_field, values.get("target"))
  texts = {"source": values.get("source"), "target": target}
  for name, text in {"prediction": prediction, **texts}.items():
    if not isinstance(text, str) and not (text is None and name in texts):
      raise Refusal(
        f"{where}: its {name} is {quoted(text)}, which is no text: write one"
      )
  own = values.get("id")
  return Line(str(number if own in (None, "") else own), prediction, **texts)


def alone(lines: Sequence[Line], path: Path, sources: bool) -> list[Sample]:
  """The samples of a file that holds its targets itself.

  Args:
    sources: whether a metric needs them.

  Raises:
    Refusal: a line lacks a text that is needed.
  """
  needed = ("target", *["source"] * sources)
  for number, line in enumerate(lines, start=1):
    for name in needed:
      if getattr(line, name) is None:
        raise Refusal(
          f"{path}, line {number} has no {name}, and no data set is named: set "
          "data.test to one, by --config or --config.data.test, or add the "
          "field to each line"
        )
  return [
    Sample(line.id, line.source or "", line.target or "", line.prediction)
    for line in lines
  ]


def match(
  lines: Sequence[Line],
  path: Path,
  records: Source,
  *,
  source_field: str,
  target_field: str,
  examples: int,
) -> list[Sample]:
  """The samples of a set, each with its line's prediction.

  An id is the record's own, as --mode=predict writes it, or its number from 0,
  as --mode=eval does. A record with a blank source is no example, as in
  training.

  Args:
    records: of the set, with all of their fields.
    examples: so many, spread over the set; below 1: all.

  Raises:
    Refusal: the ids do not fit, or sources of lines are not the set's.
  """
  rows = [(number, records[number]) for number in range(len(records))]
  numbers = [str(number) for number, _ in rows]
  own = [_own_id(number, record) for number, record in rows]
  given = Counter(line.id for line in lines)
  by_number = len(set(own)) < len(own) or (
    not given.keys() <= set(own) and given.keys() <= set(numbers)
  )
  ids = numbers if by_number else own
  scored = [
    i for i, (_, record) in enumerate(rows) if record[source_field].strip()
  ]
  if 0 < examples < len(scored):
    # As `eval.text_examples` chooses those whose text is generated.
    spread = np.arange(examples, dtype=np.int64) * len(scored) // examples
    scored = [scored[i] for i in spread]
  if not scored:
    raise Refusal(
      f"--predictions={path}: {records.name} has no record with a "
      f"{source_field!r} that is not blank: there is nothing to score; set "
      "data.source_field to the field of the sources"
    )
  _check_ids(given, [ids[i] for i in scored], ids, path, records.name)
  by_id = {line.id: line for line in lines}
  samples, others = [], []
  for i in scored:
    line, (_, record) = by_id[ids[i]], rows[i]
    source = record[source_field]
    if line.source is not None and line.source.split() != source.split():
      others.append(ids[i])
    samples.append(
      Sample(ids[i], source, record[target_field], line.prediction)
    )
  if others:
    raise Refusal(
      f"--predictions={path}: of {len(scored)} lines {len(others)} have "
      f"another source than {records.name} has by that id ({_shown(others)}): "
      "name their own set, or leave the field 'source' out of the file"
    )
  return samples


def _own_id(number: int, record: dict[str, Any]) -> str:
  own = record.get("id")
  return str(number if own in (None, "") else own)


def _check_ids(
  given: Counter[str],
  wanted: Sequence[str],
  known: Sequence[str],
  path: Path,
  name: str,
) -> None:
  faults = {
    "are missing": [i for i in wanted if i not in given],
    "stand there more than once": [i for i, n in given.items() if n > 1],
    "are not in the set": sorted(given.keys() - set(known)),
  }
  told = [
    f"{len(ids)} ids {what} ({_shown(ids)})"
    for what, ids in faults.items()
    if ids
  ]
  if told:
    raise Refusal(
      f"--predictions={path} does not fit {name}: {', '.join(told)}; give each "
      "of its records one line, by the record's own id or its number from 0"
    )


def _shown(ids: Iterable[str]) -> str:
  return few(quoted(one) for one in ids)
