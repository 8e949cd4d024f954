"""The scheduler of rows: when a source is done, a waiting one takes its row.

Rows are on devices in shards of equal size, between which nothing moves: a row
takes its source from those that wait on its own device.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32

from encdec import sharding

SourceT = TypeVar("SourceT")


class RowScheduler(Generic[SourceT]):
  """Assigns rows of the batch to sources, first come, first served.

  As many may wait as there are rows, row by row on the same devices. The rows
  of shard k are those from `k * rows / shards` on.

  Attributes:
    assigned: the source of each row; None: it has none.
    waiting: likewise; a shard's are assigned in the order of their arrival.
    exhausted: no more sources will come.
  """

  def __init__(self, sources: Iterator[SourceT], rows: int, shards: int):
    self.sources = sources
    self.size = rows // shards
    self.assigned: list[SourceT | None] = [None] * rows
    self.waiting: list[SourceT | None] = [None] * rows
    self.arrivals = [0] * rows
    self.arrived = 0
    self.exhausted = False

  @property
  def free(self) -> int:
    """How many rows have no source."""
    return sum(source is None for source in self.assigned)

  @property
  def needs_sources(self) -> bool:
    """Whether too few sources wait for the free rows, and more will come.

    Too few by a sixteenth of the rows: whatever waits on other shards is
    encoded again.
    """
    unmet = 0
    for shard in self._shards():
      free = sum(source is None for source in self.assigned[shard])
      waiting = sum(source is not None for source in self.waiting[shard])
      unmet += max(0, free - waiting)
    return not self.exhausted and unmet >= max(1, len(self.assigned) // 16)

  @property
  def drained(self) -> bool:
    """Whether no source waits and none will come."""
    return self.exhausted and all(source is None for source in self.waiting)

  def fetch(self) -> bool:
    """Fills the places in which no source waits; whether any came."""
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

  def assign_all(self) -> None:
    """Gives all rows, which are free, to the waiting sources."""
    self.assigned, self.waiting = self.waiting, [None] * len(self.waiting)

  def assign(self) -> Int32[np.ndarray, " B"]:
    """Gives free rows to waiting sources; returns `taken` of `take_rows`."""
    taken = np.full(len(self.assigned), -1, np.int32)
    for shard in self._shards():
      rows = range(shard.start, shard.stop)
      waits = [row for row in rows if self.waiting[row] is not None]
      queue = iter(sorted(waits, key=self.arrivals.__getitem__))
      for row in rows:
        if self.assigned[row] is None and (place := next(queue, -1)) >= 0:
          taken[row] = place - shard.start
          self.assigned[row] = self.waiting[place]
          self.waiting[place] = None
    return taken

  def release(self, done: Sequence[bool]) -> list[tuple[int, SourceT]]:
    """Frees the rows that are done, and gives them with their sources."""
    left = []
    for row, source in enumerate(self.assigned):
      if source is not None and done[row]:
        left.append((row, source))
        self.assigned[row] = None
    return left

  def _shards(self) -> Iterator[slice]:
    for start in range(0, len(self.assigned), self.size):
      yield slice(start, start + self.size)


def take_rows(
  current: Any,
  waiting: Any,
  taken: Int[Array, "B"],
  axes: Any,
  rules: sharding.Rules | None,
) -> Any:
  """`waiting[taken[row]]` where it is not -1, else `current[row]`.

  Only rows that are taken are written, in place where `current` is donated:
  elsewhere the compiler would copy all of them.

  Args:
    taken: counts from the first row of a row's own shard.
    axes: the logical axes of each leaf of `current`, the first "batch".
  """

  def take(current, waiting, taken):
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

    return jax.lax.fori_loop(0, jnp.sum(moved, dtype=jnp.int32), write, current)

  return sharding.by_shard(
    take, (current, waiting, taken), (axes, axes, ("batch",)), axes, rules
  )
