"""A mixture: the pairs of several sources as one, with a share of each."""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Int64

from data.examples import Example, Tokens
from data.io.digests import text_digest
from data.store.pairs import Pairs


@dataclasses.dataclass(frozen=True)
class Mixture:
  """The pairs of `parts`; their numbers run on from part to part.

  `weights` are shares of the rows, in any unit. One part is a mixture too.
  """

  parts: tuple[Pairs, ...]
  weights: tuple[float, ...] = (1.0,)

  def __post_init__(self):
    if len(self.parts) != len(self.weights):
      raise ValueError(
        f"{len(self.parts)} sources and {len(self.weights)} weights"
      )
    if len({part.tokens for part in self.parts}) != 1:
      raise ValueError("the sources of a mixture were encoded differently")

  def __len__(self) -> int:
    return sum(self.sizes)

  def __getitem__(self, pair: int) -> Example:
    part, index = self._find(pair)
    return part[index]

  @property
  def sizes(self) -> tuple[int, ...]:
    """Pairs of each part."""
    return tuple(len(part) for part in self.parts)

  @property
  def tokens(self) -> Tokens:
    return self.parts[0].tokens

  @property
  def fingerprint(self) -> str:
    """Hex digest of what the pairs are; one part's own where it is alone."""
    if len(self.parts) == 1:
      return self.parts[0].fingerprint
    text = repr([part.fingerprint for part in self.parts])
    return text_digest(text)

  def source_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    """Tokens of each pair's source."""
    return self._lengths(pairs, "source_lengths")

  def target_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    """Tokens of each pair's target, its end token included."""
    return self._lengths(pairs, "target_lengths")

  def locate(self, pair: int) -> str:
    """Where the record of a pair stands, for a message."""
    part, index = self._find(pair)
    return part.source.locate(int(part.records[index]))

  def _find(self, pair: int) -> tuple[Pairs, int]:
    for part in self.parts:
      if pair < len(part):
        return part, pair
      pair -= len(part)
    raise IndexError(f"pair {pair + len(self)} of {len(self)}")

  def _lengths(
    self, pairs: Int64[np.ndarray, " B"], name: str
  ) -> Int64[np.ndarray, " B"]:
    lengths = np.empty(len(pairs), np.int64)
    bounds = itertools.accumulate(self.sizes, initial=0)
    for part, first in zip(self.parts, bounds, strict=False):
      here = (pairs >= first) & (pairs < first + len(part))
      lengths[here] = getattr(part, name)(pairs[here] - first)
    return lengths
