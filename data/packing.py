"""Packing: several pairs in a row, as an index from rows to pairs.

The pairs are taken in a shuffled order, window by window; each goes to the
first row of its window that has room on both sides. So a row's source and
target hold the same pairs, none is split, and the rows are a function of the
lengths, the seed and the shape alone.
"""

import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from data.io.atomic_write import STORE, replacing
from data.io.digests import text_digest
from data.io.error_text import fault
from data.permutation import epoch_key, feistel
from data.plan import Members

# Pairs a window. On log-normal lengths 1024 fill half a percent less, 16384 a
# twentieth of a percent more at nearly twice the time.
WINDOW = 8192
# Of the rows that a file of rows holds; another way to pack has another one.
_FORMAT = 1
# Windows that are packed side by side: their rooms stay in the cache.
_PACKED_TOGETHER = 64
# Steps after which rows without room for any pair leave the search.
_SWEEP = 256
# The key of the order beside those of epochs.
_ORDER = 1 << 63

Shape = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class PackedRows:
  """Row r holds `pairs[offsets[r]:offsets[r + 1]]`, as segments 1, 2...

  `path` is of the file that both are mapped from, if they are: a process to
  which the rows are sent maps them itself.
  """

  offsets: Int64[np.ndarray, " M"]
  pairs: Int64[np.ndarray, " N"]
  facts: str
  whole: bool = False
  path: Path | None = None

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def __getstate__(self) -> dict[str, Any]:
    if self.path is None:
      return vars(self)
    mapped = {"offsets": None, "pairs": None, "size": len(self.pairs)}
    return vars(self) | mapped

  def __setstate__(self, state: dict[str, Any]) -> None:
    if path := state["path"]:
      offsets, pairs = _read(path, state.pop("size"))
      state |= {"offsets": offsets, "pairs": pairs}
    vars(self).update(state)

  def members(
    self, units: Int64[np.ndarray, " U"], epochs: Int64[np.ndarray, " U"]
  ) -> Members:
    """The pairs of these rows, which are the same in all epochs."""
    del epochs
    first = self.offsets[units]
    counts = self.offsets[units + 1] - first
    rows = np.repeat(np.arange(len(units), dtype=np.int64), counts)
    before = np.cumsum(counts) - counts
    places = np.repeat(first - before, counts) + np.arange(len(rows))
    return Members(np.asarray(self.pairs[places]), rows)


@dataclasses.dataclass(frozen=True)
class Fill:
  """Shares of the positions that hold a token, and pairs a row."""

  source: float
  target: float
  both: float
  pairs_per_row: float


def pack(
  source_lengths: Int64[np.ndarray, " N"],
  target_lengths: Int64[np.ndarray, " N"],
  *,
  shape: Shape,
  seed: int,
  window: int = WINDOW,
) -> PackedRows:
  """Rows of `shape` (source, target positions) that hold every pair once.

  Raises ValueError for a pair that no row holds, with the keys to change.
  """
  size = len(source_lengths)
  check(source_lengths, target_lengths, shape)
  key = epoch_key(seed, _ORDER)
  order = feistel(np.arange(size, dtype=np.int64), size, key)
  count = -(-size // window)
  bounds = np.arange(count + 1, dtype=np.int64) * size // count
  rows = np.empty(size, np.int64)
  used = 0
  for first in range(0, count, _PACKED_TOGETHER):
    part = bounds[first : first + _PACKED_TOGETHER + 1]
    here = order[part[0] : part[-1]]
    placed, opened = _first_fit(
      source_lengths[here], target_lengths[here], part - part[0], shape
    )
    # Rows of one window follow those of the window before.
    start = used + np.cumsum(opened) - opened
    rows[part[0] : part[-1]] = placed + np.repeat(start, np.diff(part))
    used += int(opened.sum())
  offsets = np.zeros(used + 1, np.int64)
  np.cumsum(np.bincount(rows, minlength=used), out=offsets[1:])
  pairs = order[np.argsort(rows, kind="stable")]
  return PackedRows(offsets, pairs, _facts(shape, seed, window))


def stored_rows(
  source_lengths: Int64[np.ndarray, " N"],
  target_lengths: Int64[np.ndarray, " N"],
  *,
  shape: Shape,
  seed: int,
  fingerprint: str,
  folder: Path | None = None,
) -> PackedRows:
  """What `pack` gives, kept in `folder` and read from there by the next.

  `fingerprint` tells the lengths apart from those of other pairs. The file is
  whole or absent; the rows are then mapped, not read. Raises ValueError for a
  file that was damaged, OSError for one that cannot be written.
  """
  if folder is None:
    return pack(source_lengths, target_lengths, shape=shape, seed=seed)
  facts = _facts(shape, seed, WINDOW)
  key = text_digest(f"{facts} of {fingerprint}")
  path = folder / f"rows-{key}.npy"
  if not path.exists():
    rows = pack(source_lengths, target_lengths, shape=shape, seed=seed)
    _write(path, rows)
  offsets, pairs = _read(path, len(source_lengths))
  return PackedRows(offsets, pairs, facts, path=path)


def _facts(shape: Shape, seed: int, window: int) -> str:
  return f"pack {_FORMAT} {shape} {seed} {window}"


def _write(path: Path, rows: PackedRows) -> None:
  """Offsets, pairs and their digest, end to end, in one atomic step."""
  array = np.concatenate([rows.offsets, rows.pairs])
  with replacing(path, STORE) as partial, open(partial, "xb") as file:
    np.save(file, np.concatenate([array, _digest(array)]), allow_pickle=False)


def _read(
  path: Path, size: int
) -> tuple[Int64[np.ndarray, " M"], Int64[np.ndarray, " N"]]:
  try:
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
  except (ValueError, EOFError) as error:
    raise ValueError(
      f"{path} is damaged ({fault(error)}): delete it"
    ) from error
  words = len(_digest(stored[:0]))
  # An offset more than there are rows, and the pairs.
  least = 2 + size + words
  if stored.dtype != np.int64 or stored.ndim != 1 or len(stored) < least:
    raise ValueError(
      f"{path} is damaged (it is {stored.dtype}{stored.shape}): delete it"
    )
  array = stored[:-words]
  if (_digest(array) != stored[-words:]).any():
    raise ValueError(f"{path} is damaged (its digest differs): delete it")
  return array[:-size], array[-size:]


def _digest(array: Int64[np.ndarray, " _"]) -> Int64[np.ndarray, " _"]:
  digest = hashlib.sha256(np.ascontiguousarray(array).data).digest()
  return np.frombuffer(digest, np.int64)


def check(
  source_lengths: Int64[np.ndarray, " N"],
  target_lengths: Int64[np.ndarray, " N"],
  shape: Shape,
) -> None:
  """Raises ValueError unless there are pairs, and each fits a row alone."""
  if not len(source_lengths):
    raise ValueError("there are no pairs to pack")
  for side, lengths, room in (
    ("source", source_lengths, shape[0]),
    ("target", target_lengths, shape[1]),
  ):
    longest = int(lengths.argmax())
    if lengths[longest] > room:
      raise ValueError(
        f"pair {longest} has {lengths[longest]} {side} tokens, a packed row "
        f"{room}: raise data.pack_{side}_length, or lower "
        f"data.max_{side}_length"
      )
    if lengths.min() < 1:
      raise ValueError(
        f"pair {int(lengths.argmin())} has no {side} token: nothing marks its "
        "place in a row"
      )


def fill(
  rows: int,
  source_lengths: Int64[np.ndarray, " N"],
  target_lengths: Int64[np.ndarray, " N"],
  shape: Shape,
) -> Fill:
  """How full so many rows of `shape` are that hold pairs of these lengths."""
  positions = rows * shape[0], rows * shape[1]
  return filled(rows, source_lengths, target_lengths, positions)


def filled(
  rows: int,
  source_lengths: Int64[np.ndarray, " N"],
  target_lengths: Int64[np.ndarray, " N"],
  positions: tuple[int, int],
) -> Fill:
  """How full so many rows are that have so many positions on either side."""
  source, target = int(source_lengths.sum()), int(target_lengths.sum())
  return Fill(
    source / positions[0],
    target / positions[1],
    (source + target) / sum(positions),
    len(source_lengths) / rows,
  )


def _first_fit(
  source: Int64[np.ndarray, " P"],
  target: Int64[np.ndarray, " P"],
  bounds: Int64[np.ndarray, " M"],
  shape: Shape,
) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " W"]]:
  """The row of each pair within its window, and the rows of each window.

  The windows advance together, a pair each a step. A row that was not opened
  has all its room, so the first that fits is an open one or the next one.
  """
  sizes = np.diff(bounds)
  longest = int(sizes.max())
  windows = np.arange(len(sizes))
  needs = [_by_step(x, bounds, longest) for x in (source, target)]
  least = [int(x.min()) for x in (source, target)]
  rooms = [np.full((len(sizes), longest), r, np.int32) for r in shape]
  names = np.tile(np.arange(longest, dtype=np.int32), (len(sizes), 1))
  placed = np.zeros((longest, len(sizes)), np.int32)
  opened, end = np.zeros(len(sizes), np.int64), 1
  for step in range(longest):
    if step % _SWEEP == _SWEEP - 1:
      closed = (rooms[0] < least[0]) | (rooms[1] < least[1])
      order = np.argsort(closed, axis=1, kind="stable")
      rooms = [np.take_along_axis(room, order, 1) for room in rooms]
      names = np.take_along_axis(names, order, 1)
      end = min(int((opened - closed.sum(axis=1)).max()) + 1, longest)
    fits = rooms[0][:, :end] >= needs[0][step][:, None]
    fits &= rooms[1][:, :end] >= needs[1][step][:, None]
    chosen = fits.argmax(axis=1)
    for room, need in zip(rooms, needs, strict=True):
      room[windows, chosen] -= need[step]
    placed[step] = names[windows, chosen]
    opened = np.maximum(opened, placed[step] + 1)
    end = min(max(end, int(chosen.max()) + 2), longest)
  within = np.arange(bounds[-1]) - np.repeat(bounds[:-1], sizes)
  rows = placed[within, np.repeat(windows, sizes)].astype(np.int64)
  return rows, np.maximum.reduceat(rows, bounds[:-1]) + 1


def _by_step(
  lengths: Int64[np.ndarray, " P"], bounds: Int64[np.ndarray, " M"], steps: int
) -> np.ndarray:
  """`[steps, windows]`: the pair of each window at each step, 0 after its end.

  A pair without tokens takes no room and is in nobody's way.
  """
  table = np.zeros((steps, len(bounds) - 1), np.int32)
  for window, (start, stop) in enumerate(itertools.pairwise(bounds)):
    table[: stop - start, window] = lengths[start:stop]
  return table
