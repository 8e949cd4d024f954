"""Generated texts beside their sources and references, kept in files."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from train.evaluators.statistics import Statistics
from train.evaluators.text import Texts
from train.workdir import json_files

# Texts of evaluations in training, and of --mode=eval: a folder each, for the
# latter may generate otherwise. Names of files in both end with the step.
TRAINING, EVALUATION = "samples", "predictions"


@dataclasses.dataclass(frozen=True)
class Sample:
  """One generated text beside its reference."""

  id: int | str
  source: str
  target: str
  prediction: str


def texts(samples: Sequence[Sample]) -> Texts:
  return Texts(
    sources=[sample.source for sample in samples],
    predictions=[sample.prediction for sample in samples],
    references=[sample.target for sample in samples],
  )


def write(
  folder: Path, step: int, samples: Mapping[str, Sequence[Sample]]
) -> None:
  """<folder>/<set>-<step>.jsonl of each set with text, by the first process."""
  if jax.process_index() != 0:
    return
  for name, of_set in samples.items():
    lines = [json.dumps(dataclasses.asdict(s)) + "\n" for s in of_set]
    if lines:
      path = folder / f"{name}-{step:08d}.jsonl"
      json_files.write_text(path, "".join(lines))


def signatures(statistics: Mapping[str, Statistics]) -> dict[str, str]:
  """What decides the values of metrics, by name, of those that tell."""
  return {
    name: one.signature for name, one in statistics.items() if one.signature
  }
