"""The plan: which pairs stand in which row of which step's batch.

An epoch is a keyed permutation of units: rows, or whole batches where a batch
is of one bucket. Units are numbered globally: unit g is unit `g mod R` of
epoch `g // R`, R being their number; batch n holds the rows nB ... nB + B - 1,
across epochs. Nothing depends on what was read before.

Of several sources, each has epochs of its own, and every `BLOCK` units hold an
exact number of each: its share, rounded by largest remainder.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from data.io.digests import text_digest
from data.permutation import epoch_key, feistel

# Units in which a mixture keeps its shares.
BLOCK = 1000

# Numbers beside those of epochs, for keys of their own.
_SOURCES = 1 << 61
_BLOCKS = 1 << 62


@dataclasses.dataclass(frozen=True)
class Members:
  """The pairs of a batch: `pairs[i]` stands in row `rows[i]`; rows ascend."""

  pairs: Int64[np.ndarray, " P"]
  rows: Int64[np.ndarray, " P"]


@runtime_checkable
class Units(Protocol):
  """What an epoch of one source permutes."""

  @property
  def whole(self) -> bool:
    """Whether a unit is a whole batch; else it is a row."""
    ...

  @property
  def facts(self) -> str:
    """What decides the units, apart from the pairs."""
    ...

  def __len__(self) -> int: ...

  def members(
    self, units: Int64[np.ndarray, " U"], epochs: Int64[np.ndarray, " U"]
  ) -> Members:
    """The pairs of these rows, numbered from 0; or of one batch."""
    ...


@dataclasses.dataclass(frozen=True)
class OnePairRows:
  """Rows of one pair each: row i is pair i."""

  size: int
  whole: bool = False
  facts: str = "none"

  def __len__(self) -> int:
    return self.size

  def members(
    self, units: Int64[np.ndarray, " U"], epochs: Int64[np.ndarray, " U"]
  ) -> Members:
    del epochs
    return Members(units, np.arange(len(units), dtype=np.int64))


@dataclasses.dataclass(frozen=True)
class Draws:
  """Units in the order of a run: of which source, epoch and number."""

  sources: Int64[np.ndarray, " U"]
  epochs: Int64[np.ndarray, " U"]
  units: Int64[np.ndarray, " U"]


@dataclasses.dataclass(frozen=True)
class Order:
  """An endless sequence of units: of source k there are `sizes[k]`.

  Source k begins with its epoch `first_epochs[k]`.
  """

  sizes: tuple[int, ...]
  weights: tuple[float, ...]
  seed: int
  first_epochs: tuple[int, ...]

  def draw(self, first: int, count: int) -> Draws:
    """Units number `first` to `first + count - 1`."""
    sources, ranks = self._ranks(first, count)
    epochs, units = np.empty_like(ranks), np.empty_like(ranks)
    for source, size in enumerate(self.sizes):
      here = np.flatnonzero(sources == source)
      epoch, index = np.divmod(ranks[here], size)
      epochs[here] = epoch = epoch + self.first_epochs[source]
      seed = epoch_key(self.seed, _SOURCES + source) if source else self.seed
      for each in np.unique(epoch):
        those = epoch == each
        key = epoch_key(seed, int(each))
        units[here[those]] = feistel(index[those], size, key)
    return Draws(sources, epochs, units)

  def done(self, number: int) -> tuple[float, ...]:
    """Epochs of each source that end before unit `number`, with fractions."""
    blocks, within = divmod(number, BLOCK)
    sources, _ = self._ranks(blocks * BLOCK, BLOCK)
    seen = np.bincount(sources[:within], minlength=len(self.sizes))
    units = (self.quotas() * blocks + seen).tolist()
    return tuple(
      begun + count / size
      for begun, count, size in zip(
        self.first_epochs, units, self.sizes, strict=True
      )
    )

  def quotas(self) -> Int64[np.ndarray, " K"]:
    """Units of each source in a block; they add up to `BLOCK`."""
    weights = np.asarray(self.weights, np.float64)
    shares = weights * BLOCK / weights.sum()
    quotas = np.floor(shares).astype(np.int64)
    # Ties, which rounding errors must not break, go to the source named first.
    left = BLOCK - int(quotas.sum())
    remainders = np.round(shares - quotas, 9)
    quotas[np.argsort(-remainders, kind="stable")[:left]] += 1
    return quotas

  def _ranks(
    self, first: int, count: int
  ) -> tuple[Int64[np.ndarray, " U"], Int64[np.ndarray, " U"]]:
    """The source of each unit, and how many of that source come before it."""
    numbers = np.arange(first, first + count, dtype=np.int64)
    if len(self.sizes) == 1:
      return np.zeros_like(numbers), numbers
    # Whole blocks: a unit's rank counts those before it in its block.
    blocks = range(first // BLOCK, (first + count - 1) // BLOCK + 1)
    parts = [self._block(block) for block in blocks]
    sources, ranks = (np.concatenate(part) for part in zip(*parts, strict=True))
    within = numbers - blocks.start * BLOCK
    return sources[within], ranks[within]

  def _block(
    self, block: int
  ) -> tuple[Int64[np.ndarray, " U"], Int64[np.ndarray, " U"]]:
    quotas = self.quotas()
    key = epoch_key(epoch_key(self.seed, _BLOCKS), block)
    shuffled = feistel(np.arange(BLOCK, dtype=np.int64), BLOCK, key)
    owners = np.repeat(np.arange(len(quotas), dtype=np.int64), quotas)
    sources, ranks = owners[shuffled], np.empty_like(shuffled)
    for source, quota in enumerate(quotas.tolist()):
      ranks[sources == source] = block * quota + np.arange(quota)
    return sources, ranks


@dataclasses.dataclass(frozen=True)
class Plan:
  """Batches of `batch_size` rows, for ever.

  Attributes:
    units: of each source.
    sizes: pairs of each source; their numbers run on from source to source.
    weights: of the sources, in units.
    first_step: the step at which the plan begins...
    first_epochs: ...and the epoch of each source that then begins.
  """

  units: tuple[Units, ...]
  sizes: tuple[int, ...]
  weights: tuple[float, ...]
  batch_size: int
  seed: int
  first_step: int = 0
  first_epochs: tuple[int, ...] = ()

  def __post_init__(self):
    if not self.units or not all(len(units) for units in self.units):
      raise ValueError(f"a plan over {self.sizes} pairs: there are none")
    if self.batch_size < 1:
      raise ValueError(f"batch_size = {self.batch_size}: make it at least 1")
    if not all(0 < weight < float("inf") for weight in self.weights):
      raise ValueError(f"weights {self.weights} of sources: each is above 0")
    if not self.order.quotas().all():
      raise ValueError(
        f"weights {self.weights} of data.train: one rounds to none of {BLOCK} "
        "rows; raise it, or leave its source out"
      )

  @property
  def order(self) -> Order:
    """The sequence of units."""
    sizes = tuple(len(units) for units in self.units)
    epochs = self.first_epochs or (0,) * len(sizes)
    return Order(sizes, self.weights, self.seed, epochs)

  @property
  def units_per_batch(self) -> int:
    return 1 if self.units[0].whole else self.batch_size

  def members(self, step: int) -> Members:
    """The pairs of the batch of `step`, row by row."""
    draws = self.order.draw(self._first(step), self.units_per_batch)
    pairs, rows = [], []
    base = 0
    for source, (units, size) in enumerate(
      zip(self.units, self.sizes, strict=True)
    ):
      here = np.flatnonzero(draws.sources == source)
      if len(here):
        members = units.members(draws.units[here], draws.epochs[here])
        pairs.append(members.pairs + base)
        # Rows of one batch have their places already.
        rows.append(members.rows if units.whole else here[members.rows])
      base += size
    every = np.concatenate(rows)
    order = np.argsort(every, kind="stable")
    return Members(np.concatenate(pairs)[order], every[order])

  def epochs(self, step: int) -> tuple[float, ...]:
    """Epochs of each source done before `step`, the fraction begun included."""
    return self.order.done(self._first(step))

  def begin(self, step: int, epochs: tuple[int, ...]) -> "Plan":
    """This plan from `step` on, where these epochs of the sources begin."""
    return dataclasses.replace(self, first_step=step, first_epochs=epochs)

  def fingerprint(self, *facts: str) -> str:
    """Hex digest of this plan and of `facts` (what the pairs are).

    Where the plan begins is not of it.
    """
    units = tuple(units.facts for units in self.units)
    numbers = (self.sizes, self.weights, self.batch_size, self.seed, BLOCK)
    text = repr((units, numbers, facts))
    return text_digest(text)

  def _first(self, step: int) -> int:
    if step < self.first_step:
      raise ValueError(
        f"step {step}: the plan's steps count from {self.first_step}"
      )
    return (step - self.first_step) * self.units_per_batch
