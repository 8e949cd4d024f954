"""Duplicates: held-out pairs that stand in the training data too.

Texts are compared by 64 bits of their digests, as they are written. Only the
held-out digests are in memory; the training data pass by once.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int64, UInt64

from data.sources import Source

_CHUNK = 4096


@dataclasses.dataclass(frozen=True)
class Overlap:
  """What a held-out set of `total` pairs has in common with training.

  Attributes:
    pairs: those whose source and target are a training pair's.
    sources: those whose source is a training pair's, `pairs` among them.
    example: the places of one of them, held-out and in training.
  """

  total: int
  pairs: int
  sources: int
  example: tuple[str, str] | None

  def __str__(self) -> str:
    places = "{} is {}".format(*self.example) if self.example else "none"
    return (
      f"{self.pairs} of {self.total} pairs ({self.pairs / self.total:.1%}) "
      "stand in the training data too, and "
      f"{self.sources - self.pairs} more with another target; for example "
      f"{places}"
    )


def find(
  train: Sequence[Source],
  held_out: Mapping[str, Source],
  *,
  source_field: str,
  target_field: str,
) -> dict[str, Overlap]:
  """The overlap of each held-out set with all of `train`, by its name.

  A source without a text counts for nothing.
  """
  fields = (source_field, target_field)
  digests = {
    name: np.concatenate([d for _, d in _digests(source, fields)])
    for name, source in held_out.items()
  }
  if not digests:
    return {}
  known = np.unique(np.concatenate(list(digests.values())))
  # Of each digest, the first training record that has it.
  seen = np.full(len(known), -1, np.int64)
  start = 0
  for source in train:
    for first, chunk in _digests(source, fields):
      _note(seen, known, chunk, start + first)
    start += len(source)
  return {
    name: _overlap(train, source, seen[np.searchsorted(known, digests[name])])
    for name, source in held_out.items()
  }


def _digests(
  source: Source, fields: Sequence[str]
) -> Iterator[tuple[int, UInt64[np.ndarray, "N 2"]]]:
  """The first record of a chunk; digests of its sources and its pairs."""
  for first in range(0, len(source), _CHUNK):
    last = min(first + _CHUNK, len(source))
    rows = [_digest(source, i, fields) for i in range(first, last)]
    yield first, np.frombuffer(b"".join(rows), np.uint64).reshape(-1, 2)


def _digest(source: Source, index: int, fields: Sequence[str]) -> bytes:
  record = source[index]
  text, target = (record[field].encode() for field in fields)
  if not text.strip():
    # Its own place: no other record's.
    text = f"\0{source.name}\0{index}".encode()
  digest = hashlib.blake2b(text, digest_size=8)
  alone = digest.digest()
  digest.update(b"\0" + len(text).to_bytes(8, "big") + target)
  return alone + digest.digest()


def _note(
  seen: Int64[np.ndarray, " K"],
  known: UInt64[np.ndarray, " K"],
  chunk: UInt64[np.ndarray, "N 2"],
  first: int,
) -> None:
  """Writes down which known digests the records from `first` on have."""
  flat = chunk.reshape(-1)
  place = np.minimum(np.searchsorted(known, flat), len(known) - 1)
  for here in np.flatnonzero(known[place] == flat).tolist():
    if seen[place[here]] < 0:
      seen[place[here]] = first + here // 2


def _overlap(
  train: Sequence[Source], source: Source, seen: Int64[np.ndarray, "N 2"]
) -> Overlap:
  sources, pairs = (seen >= 0).T
  example = None
  if sources.any():
    side = pairs if pairs.any() else sources
    index = int(side.argmax())
    number = int(seen[index, 1 if pairs.any() else 0])
    example = source.locate(index), _locate(train, number)
  return Overlap(len(source), int(pairs.sum()), int(sources.sum()), example)


def _locate(train: Sequence[Source], number: int) -> str:
  for source in train:
    if number < len(source):
      return source.locate(number)
    number -= len(source)
  raise IndexError(f"record {number} after the last of {len(train)} sources")
