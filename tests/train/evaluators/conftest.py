"""Real texts with predictions that are more and less like their references."""

import pathlib
import sysconfig

import numpy as np
import pytest

from data.schemes import pydoc
from train.evaluators.text import Texts


def perturb(rng, source, target):
  """The target with words left out, exchanged, or copied from the source."""
  words, others = target.split(), source.split()
  rate = rng.uniform(0.0, 0.7)
  kept = []
  for word in words:
    chance = rng.uniform()
    if chance < rate / 3:
      continue
    if chance < rate * 2 / 3:
      start = rng.integers(len(others))
      kept += others[start : start + rng.integers(1, 5)]
    kept.append(word)
  for _ in range(rng.integers(1 + int(4 * rate))):
    if len(kept) > 1:
      one, other = rng.integers(len(kept), size=2)
      kept[one], kept[other] = kept[other], kept[one]
  return " ".join(kept)


@pytest.fixture(scope="session")
def real_texts():
  """200 pairs: a few predictions are perfect, a few are empty."""
  # A package alone: the whole library takes longer to parse.
  library = pathlib.Path(sysconfig.get_path("stdlib"))
  records = pydoc.pairs_of(library / "asyncio")[:200]
  assert len(records) == 200
  rng = np.random.default_rng(0)
  sources = [record["source"] for record in records]
  targets = [record["target"] for record in records]
  predictions = [
    perturb(rng, source, target)
    for source, target in zip(sources, targets, strict=True)
  ]
  predictions[:3] = targets[:3]
  predictions[3:6] = ["", " ", "?"]
  return Texts(sources, predictions, targets)
