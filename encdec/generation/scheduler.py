"""Refilling: rows that are done make room for sources that wait.

Rows lie on devices in shards of equal size, between which nothing moves: a row
takes its source from those that wait on its own device.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32

from encdec import sharding

Source = TypeVar("Source")


class Seating(Generic[Source]):
  """Which source is in which row, and which wait for one.

  As many may wait as there are rows, row by row on the same devices. The rows
  of shard k are those from `k * rows / shards` on.

  Attributes:
    seated: of each row, its source; None: it has none.
    waiting: likewise; those of a shard leave in the order of their arrival.
    exhausted: no more sources will come.
  """

  def __init__(self, sources: Iterator[Source], rows: int, shards: int):
    self.sources = sources
    self.size = rows // shards
    self.seated: list[Source | None] = [None] * rows
    self.waiting: list[Source | None] = [None] * rows
    self.arrivals = [0] * rows
    self.arrived = 0
    self.exhausted = False

  @property
  def free(self) -> int:
    """How many rows have no source."""
    return sum(source is None for source in self.seated)

  @property
  def short(self) -> bool:
    """Whether enough rows are free for which no source waits, and more come.

    A sixteenth of them: whatever waits on other shards is encoded again.
    """
    unmet = 0
    for shard in self._shards():
      free = sum(source is None for source in self.seated[shard])
      waiting = sum(source is not None for source in self.waiting[shard])
      unmet += max(0, free - waiting)
    return not self.exhausted and unmet >= max(1, len(self.seated) // 16)

  @property
  def settled(self) -> bool:
    """Whether no source waits and none will come."""
    return self.exhausted and all(source is None for source in self.waiting)

  def fetch(self) -> bool:
    """Lets sources wait where none does; whether there were any."""
    fetched = False
    # Neighbours are spread over the shards: they are often of one length.
    rows = len(self.waiting)
    for row in np.arange(rows).reshape(-1, self.size).T.reshape(-1).tolist():
      if self.waiting[row] is not None:
        continue
      source = next(self.sources, None)
      if source is None:
        self.exhausted = True
        break
      self.waiting[row] = source
      self.arrivals[row] = self.arrived
      self.arrived += 1
      fetched = True
    return fetched

  def seat_all(self) -> None:
    """Takes those that wait for those that are seated; all rows are free."""
    self.seated, self.waiting = self.waiting, [None] * len(self.waiting)

  def seat(self) -> Int32[np.ndarray, " B"]:
    """Gives free rows to those that wait; see `take_rows`."""
    taken = np.full(len(self.seated), -1, np.int32)
    for shard in self._shards():
      rows = range(shard.start, shard.stop)
      waits = [row for row in rows if self.waiting[row] is not None]
      queue = iter(sorted(waits, key=self.arrivals.__getitem__))
      for row in rows:
        if self.seated[row] is None and (place := next(queue, -1)) >= 0:
          taken[row] = place - shard.start
          self.seated[row] = self.waiting[place]
          self.waiting[place] = None
    return taken

  def leave(self, done: Sequence[bool]) -> list[tuple[int, Source]]:
    """Frees the rows that are done; which they were, and their sources."""
    left = []
    for row, source in enumerate(self.seated):
      if source is not None and done[row]:
        left.append((row, source))
        self.seated[row] = None
    return left

  def _shards(self) -> Iterator[slice]:
    for start in range(0, len(self.seated), self.size):
      yield slice(start, start + self.size)


def take_rows(
  seated: Any,
  waiting: Any,
  taken: Int[Array, "B"],
  axes: Any,
  rules: sharding.Rules | None,
) -> Any:
  """`waiting[taken[row]]` where it is not -1, else `seated[row]`.

  Only rows that are taken are written, in place where `seated` is donated:
  elsewhere the compiler would copy all of them.

  Args:
    taken: counts from the first row of a row's own shard.
    axes: the logical axes of each leaf of `seated`, the first "batch".
  """

  def take(seated, waiting, taken):
    moved = taken >= 0
    rows = jnp.argsort(~moved, stable=True)

    def write(step, held):
      row = rows[step]
      return jax.tree.map(
        lambda to, source: jax.lax.dynamic_update_index_in_dim(
          to,
          jax.lax.dynamic_index_in_dim(source, taken[row], keepdims=False),
          row,
          axis=0,
        ),
        held,
        waiting,
      )

    return jax.lax.fori_loop(0, jnp.sum(moved, dtype=jnp.int32), write, seated)

  return sharding.by_shard(
    take, (seated, waiting, taken), (axes, axes, ("batch",)), axes, rules
  )
