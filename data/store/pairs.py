"""Encoded pairs: what is read of a set, whatever holds its ids."""

import abc
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from data.examples import Example, Tokens
from data.io.digests import digest
from data.permutation import epoch_key, feistel
from data.sources import Source
from data.store.counts import Counts, measure
from data.store.encoding import Encoding


class Pairs(abc.ABC):
  """Pairs as ids, in the order of the source; any of them in constant time.

  Pair i is record `records[i]` of `source`. `fingerprint` is of the ids, their
  order and `tokens`.
  """

  source: Source
  tokens: Tokens
  counts: Counts
  fingerprint: str
  records: Int64[np.ndarray, " N"]

  def __len__(self) -> int:
    return len(self.records)

  @abc.abstractmethod
  def __getitem__(self, index: int) -> Example: ...

  @abc.abstractmethod
  def source_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    """Tokens of each pair's source, from a table."""

  @abc.abstractmethod
  def target_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    """Tokens of each pair's target, its end token included, from a table."""

  def record(self, index: int) -> dict[str, str]:
    """The record that pair `index` was made of."""
    return self.source[int(self.records[index])]

  def take(self, pairs: Int64[np.ndarray, " B"]) -> "Pairs":
    """These pairs alone, in this order; `counts` stay those of all."""
    return View(
      base=self,
      sources=pairs,
      targets=pairs,
      fingerprint=digest([self.fingerprint, "taken", pairs.tobytes()]),
    )

  def permute_sources(self, seed: int) -> "Pairs":
    """The same targets, each with the source of another pair.

    The order is one cycle through all pairs: none keeps its own source.
    `record` still gives the record of the target.
    """
    size = len(self)
    if size < 2:
      raise ValueError(f"{size} pairs: sources are permuted among at least 2")
    order = feistel(np.arange(size), size, epoch_key(seed, 0))
    sources = np.empty_like(order)
    sources[order] = np.roll(order, 1)
    return View(
      base=self,
      sources=sources,
      targets=np.arange(size),
      fingerprint=digest([self.fingerprint, "permuted", str(seed)]),
    )


class View(Pairs):
  """Pairs of others: the source of one, the target of the same or another."""

  def __init__(
    self,
    base: Pairs,
    sources: Int64[np.ndarray, " N"],
    targets: Int64[np.ndarray, " N"],
    fingerprint: str,
  ):
    self.source, self.tokens, self.counts = (
      base.source,
      base.tokens,
      base.counts,
    )
    self.fingerprint = fingerprint
    self.records = base.records[targets]
    self._base, self._sources, self._targets = base, sources, targets

  def __getitem__(self, index: int) -> Example:
    source, target = int(self._sources[index]), int(self._targets[index])
    example = self._base[target]
    if source == target:
      return example
    return Example(self._base[source].source, example.target)

  def source_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    return self._base.source_lengths(self._sources[pairs])

  def target_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    return self._base.target_lengths(self._targets[pairs])


class EncodedPairs(Pairs):
  """Pairs in memory: a few, or those of a test. A run reads prepared ones."""

  def __init__(
    self,
    source: Source,
    tokens: Tokens,
    records: Sequence[int],
    examples: Sequence[Example],
    empty_target: int = 1,
  ):
    self.source, self.tokens = source, tokens
    self.records = np.asarray(records, np.int64)
    self._examples = list(examples)
    table = [measure(e) for e in examples]
    self._table = np.array(table, np.int64).reshape(-1, 4)
    self.counts = Counts.total(
      [Counts.of(self._table, records=len(source), empty_target=empty_target)],
      skipped_records=source.skipped,
    )
    self.fingerprint = digest(
      [
        source.fingerprint,
        repr(tokens),
        self._table.tobytes(),
        *(ids.tobytes() for e in examples for ids in (e.source, e.target)),
      ]
    )

  def __getitem__(self, index: int) -> Example:
    return self._examples[index]

  def source_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    return self._table[pairs, 0]

  def target_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    return self._table[pairs, 1]


def encode_pairs(source: Source, encoding: Encoding) -> EncodedPairs:
  """Every pair of `source`, tokenised and truncated in memory.

  Raises ValueError naming a bad record, if that is an error.
  """
  encoded = list(encoding.examples(source, range(len(source))))
  check_some(len(encoded), source, encoding.source_field)
  records, examples = zip(*encoded, strict=True)
  return EncodedPairs(
    source, encoding.tokens, records, examples, encoding.empty_target
  )


def check_some(pairs: int, source: Source, field: str) -> None:
  """Raises ValueError where no pair is left, for want of texts in `field`."""
  if not pairs:
    raise ValueError(
      f"{source.name}: data.source_field = {field!r} is empty in all "
      f"{len(source)} records; fix the file, or name another field"
    )
