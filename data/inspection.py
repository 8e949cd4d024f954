"""Inspection: how long pairs are, what maximum lengths cut, how rows fill.

Everything here is a function of a table of lengths, taken before truncation.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from data import packing
from data.packing import Fill
from data.permutation import epoch_key, feistel
from data.schemes.records import Record
from data.sources import Source

Shape = tuple[int, int]
# Pairs that are tokenised to be measured, and those on which shapes are tried.
SAMPLE, _TRIED = 50_000, 8192
# The share of a side that a suggested maximum length may truncate.
CUT = 0.05
_PERCENTILES = (0, 5, 25, 50, 75, 90, 95, 99, 100)
_BINS, _BAR = 12, 40
# Row shapes tried: the source side in maximum lengths, the target side in
# what the sources of such a row bring with them.
_SOURCES = (1.0, 1.25, 1.5, 2.0)
_TARGETS = (0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)
_MULTIPLE = 8
# A larger row must fill this much better.
_WORTH = 0.02


@dataclasses.dataclass(frozen=True)
class Sample:
  """At most `size` records of a source, evenly spread."""

  base: Source
  size: int

  @property
  def name(self) -> str:
    return self.base.name

  @property
  def fingerprint(self) -> str:
    return f"{self.base.fingerprint}/{len(self)}"

  @property
  def skipped(self) -> int:
    return self.base.skipped

  def __len__(self) -> int:
    return min(self.size, len(self.base))

  def __getitem__(self, index: int) -> Record:
    return self.base[self._number(index)]

  def locate(self, index: int) -> str:
    return self.base.locate(self._number(index))

  def _number(self, index: int) -> int:
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    return index * len(self.base) // len(self)


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Tokens of each pair's source and target, special tokens included."""

  source: Int64[np.ndarray, " N"]
  target: Int64[np.ndarray, " N"]

  def __len__(self) -> int:
    return len(self.source)

  def cut(self, longest: Shape) -> "Lengths":
    """As they are after truncation."""
    return Lengths(
      np.minimum(self.source, longest[0]), np.minimum(self.target, longest[1])
    )

  def shuffled(self, seed: int) -> "Lengths":
    """In the order of a run's first epoch."""
    order = feistel(
      np.arange(len(self), dtype=np.int64), len(self), epoch_key(seed, 0)
    )
    return Lengths(self.source[order], self.target[order])


@dataclasses.dataclass(frozen=True)
class Side:
  """The lengths of one side.

  Attributes:
    truncated: the share that is longer than `longest`, the maximum length.
    enough: the least maximum length that truncates at most `CUT`.
    percentiles: (percent, tokens).
    bins: (least, greatest, share); the last one ends with the longest.
  """

  name: str
  longest: int
  truncated: float
  enough: int
  percentiles: tuple[tuple[int, int], ...]
  bins: tuple[tuple[int, int, float], ...]


@dataclasses.dataclass(frozen=True)
class Rows:
  """A shape of packed rows for some maximum lengths, and how it fills."""

  longest: Shape
  shape: Shape
  fill: Fill


def side(name: str, lengths: Int64[np.ndarray, " N"], longest: int) -> Side:
  """What the lengths of a side are like."""
  ordered = np.sort(lengths)
  rank = lambda p: max(0, -(-p * len(ordered) // 100) - 1)
  percentiles = tuple((p, int(ordered[rank(p)])) for p in _PERCENTILES)
  # A few very long ones would leave one bin for all others.
  width = max(1, -(-int(ordered[rank(95)]) // (_BINS - 1)))
  edges = [1 + width * i for i in range(_BINS)]
  edges = [*edges, max(edges[-1] + width, int(ordered[-1]) + 1)]
  counts, _ = np.histogram(ordered, edges)
  bins = tuple(
    (low, high - 1, float(count / len(ordered)))
    for low, high, count in zip(edges, edges[1:], counts, strict=False)
  )
  truncated = float((ordered > longest).mean())
  return Side(name, longest, truncated, _enough(ordered), percentiles, bins)


def _enough(ordered: Int64[np.ndarray, " N"]) -> int:
  cut = int(CUT * len(ordered))
  # No run may have a maximum length below 2.
  return max(2, int(ordered[len(ordered) - cut - 1]))


def fill_padded(lengths: Lengths, shape: Shape) -> Fill:
  """One pair a row, all rows of one shape."""
  return _fill(lengths, len(lengths), *(len(lengths) * side for side in shape))


def fill_batches(
  lengths: Lengths, shapes: Sequence[Shape], batch_size: int, seed: int
) -> Fill:
  """One pair a row, a batch in the first shape that holds its longest."""
  lengths = lengths.shuffled(seed)
  first = np.arange(0, len(lengths), batch_size, dtype=np.int64)
  longest = [
    np.maximum.reduceat(x, first) for x in (lengths.source, lengths.target)
  ]
  rows = np.minimum(batch_size, len(lengths) - first)
  return _fill_shapes(lengths, longest, rows, shapes)


def fill_buckets(lengths: Lengths, shapes: Sequence[Shape]) -> Fill:
  """One pair a row, each in the first shape that holds it."""
  rows = np.ones(len(lengths), np.int64)
  return _fill_shapes(lengths, [lengths.source, lengths.target], rows, shapes)


def fill_packed(lengths: Lengths, shape: Shape, seed: int) -> Fill:
  """Several pairs a row, as training packs them."""
  rows = len(
    packing.pack(lengths.source, lengths.target, shape=shape, seed=seed)
  )
  return _fill(lengths, rows, rows * shape[0], rows * shape[1])


def suggest_rows(lengths: Lengths, longest: Shape, seed: int) -> Rows:
  """The row shape that packing fills best, source and target alike.

  Of the source lengths that fill nearly as well the smallest is taken:
  attention costs the square of it.
  """
  lengths = lengths.cut(longest)
  shuffled = lengths.shuffled(seed)
  tried = Lengths(shuffled.source[:_TRIED], shuffled.target[:_TRIED])
  ratio = tried.target.mean() / tried.source.mean()
  best: list[tuple[float, Shape]] = []
  for times in _SOURCES:
    source = _round_up(longest[0] * times)
    targets = {
      max(_round_up(source * ratio * t), _round_up(longest[1]))
      for t in _TARGETS
    }
    shapes = [(source, target) for target in sorted(targets)]
    best.append(
      max((fill_packed(tried, shape, seed).both, shape) for shape in shapes)
    )
  enough = max(best)[0] - _WORTH
  shape = next(shape for filled, shape in best if filled >= enough)
  return Rows(longest, shape, fill_packed(lengths, shape, seed))


def _round_up(length: float | int) -> int:
  return int(-(-length // _MULTIPLE)) * _MULTIPLE


def _fill_shapes(
  lengths: Lengths,
  longest: Sequence[Int64[np.ndarray, " U"]],
  rows: Int64[np.ndarray, " U"],
  shapes: Sequence[Shape],
) -> Fill:
  """The fill of units of `rows` rows each, whose longest pairs are given."""
  chosen = np.full(len(rows), -1, np.int64)
  for number, (source, target) in reversed(list(enumerate(shapes))):
    chosen[(longest[0] <= source) & (longest[1] <= target)] = number
  if (chosen < 0).any():
    raise ValueError(
      f"no shape of {tuple(shapes)} holds the longest pair; add one"
    )
  table = np.array(shapes, np.int64)[chosen] * rows[:, None]
  return _fill(lengths, int(rows.sum()), *table.sum(axis=0).tolist())


def _fill(lengths: Lengths, rows: int, source: int, target: int) -> Fill:
  """Of so many rows with so many positions on either side."""
  return packing.filled(rows, lengths.source, lengths.target, (source, target))


def side_text(side: Side) -> str:
  """A side as lines of text."""
  percents = "".join(f"{p:>8}" for p, _ in side.percentiles)
  tokens = "".join(f"{n:>8}" for _, n in side.percentiles)
  lines = [
    f"{side.name} lengths",
    f"  percentile{percents}",
    f"  tokens    {tokens}",
  ]
  most = max(share for *_, share in side.bins)
  for low, high, share in side.bins:
    bar = "#" * round(_BAR * share / most)
    lines.append(f"  {low:>8} -{high:>7} {bar:<{_BAR}} {share:6.1%}")
  key = f"data.max_{side.name}_length"
  lines.append(
    f"  {key} = {side.longest} truncates {side.truncated:.1%}; the least that "
    f"truncates at most {CUT:.0%} is {side.enough}"
  )
  return "\n".join(lines)


def fills_text(fills: Sequence[tuple[str, Fill]]) -> str:
  """Named fills as a table."""
  title = "filled positions"
  width = max(len(title), *(len(name) for name, _ in fills)) + 2
  lines = [f"{title:<{width}}  source  target    both  pairs a row"]
  for name, fill in fills:
    shares = f"{fill.source:8.1%}{fill.target:8.1%}{fill.both:8.1%}"
    lines.append(f"  {name:<{width - 2}}{shares}{fill.pairs_per_row:13.2f}")
  return "\n".join(lines)


def rows_text(rows: Rows) -> str:
  """A suggestion as flags that can be copied."""
  fill = rows.fill
  return (
    f"  --config.data.max_source_length={rows.longest[0]} "
    f"--config.data.max_target_length={rows.longest[1]}\n"
    f"  --config.data.pack_source_length={rows.shape[0]} "
    f"--config.data.pack_target_length={rows.shape[1]}\n"
    f"    fills {fill.source:.1%} of the source and {fill.target:.1%} of the "
    f"target positions, with {fill.pairs_per_row:.2f} pairs a row"
  )
