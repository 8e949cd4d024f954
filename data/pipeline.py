"""The pipeline: the batch of step n, as a pure function of (seed, n)."""

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import grain.python as grain
import jax
import numpy as np
from absl import flags
from grain.experimental import ThreadPrefetchIterDataset
from jaxtyping import Int64

from data import device
from data.buckets import Shape, bucket_batches, choose_bucket
from data.collate import Batch, collate
from data.mixture import Mixture
from data.packing import Fill, fill, stored_rows
from data.plan import OnePairRows, Plan, Units
from data.store.pairs import Pairs
from data.store.worker_processes import end_with_parent, sheltered

PACKINGS = ("none", "bucket", "pack")


@dataclasses.dataclass(frozen=True)
class Pipeline:
  """Batches of a plan over `pairs`.

  `packing` is one of `PACKINGS`. `shapes` are those (S, T) that a batch may
  have, smallest first: the first that holds its pairs, or that of a packed row.
  """

  pairs: Mixture
  packing: str
  plan: Plan
  shapes: tuple[Shape, ...]

  @property
  def batch_size(self) -> int:
    """Rows of a global batch."""
    return self.plan.batch_size

  def begin(self, step: int, epochs: tuple[int, ...]) -> "Pipeline":
    """These batches from `step` on, where these epochs of the sources begin."""
    return dataclasses.replace(self, plan=self.plan.begin(step, epochs))

  @property
  def fingerprint(self) -> str:
    """Hex digest of all that decides the batches."""
    return self.plan.fingerprint(self.pairs.fingerprint, repr(self.shapes))

  def fill(self) -> Fill:
    """How full packed rows are, in an epoch of every source."""
    rows = sum(len(units) for units in self.plan.units)
    every = np.arange(len(self.pairs), dtype=np.int64)
    return fill(
      rows,
      self.pairs.source_lengths(every),
      self.pairs.target_lengths(every),
      self.shapes[-1],
    )

  def members(self, step: int) -> list[int]:
    """The pairs that batch `step` holds, in row order."""
    return self.plan.members(step).pairs.tolist()

  def batch(
    self, step: int, rows: Int64[np.ndarray, " R"] | None = None
  ) -> Batch:
    """Batch `step`, or those of its rows alone that `rows` numbers."""
    members = self.plan.members(step)
    shape = self.shapes[-1]
    if self.packing != "pack":
      shape = choose_bucket(self.pairs, members.pairs, self.shapes)
    if rows is None:
      rows = np.arange(self.batch_size, dtype=np.int64)
    mine = np.isin(members.rows, rows)
    return collate(
      [self.pairs[i] for i in members.pairs[mine].tolist()],
      shape=shape,
      tokens=self.pairs.tokens,
      rows=len(rows),
      places=np.searchsorted(rows, members.rows[mine]),
    )


def make_pipeline(
  pairs: Mixture,
  *,
  packing: str,
  batch_size: int,
  seed: int,
  buckets: Sequence[Shape],
  pack_shape: Shape,
  folder: Path | None = None,
) -> Pipeline:
  """The pipeline over `pairs`: one pair a row, batches of a bucket, or packed.

  Args:
    packing: one of `PACKINGS`.
    buckets: shapes of batches, smallest first, of "none" and "bucket".
    pack_shape: of a row, of "pack".
    folder: where packed rows are kept.

  Raises:
    ValueError: a pair that no shape holds.
  """
  units: list[Units] = []
  for part in pairs.parts:
    every = np.arange(len(part), dtype=np.int64)
    lengths = part.source_lengths(every), part.target_lengths(every)
    if packing == "pack":
      units.append(
        stored_rows(
          *lengths,
          shape=pack_shape,
          seed=seed,
          fingerprint=part.fingerprint,
          folder=folder,
        )
      )
    elif packing == "bucket":
      units.append(
        bucket_batches(
          *lengths, buckets=buckets, batch_size=batch_size, seed=seed
        )
      )
    elif packing == "none":
      # The largest batch there could be must have its bucket.
      choose_bucket(part, every, buckets)
      units.append(OnePairRows(len(part)))
    else:
      raise ValueError(
        f"data.packing = {packing!r}: choose one of {', '.join(PACKINGS)}"
      )
  plan = Plan(tuple(units), pairs.sizes, pairs.weights, batch_size, seed)
  shapes = (pack_shape,) if packing == "pack" else tuple(buckets)
  return Pipeline(pairs, packing, plan, shapes)


@dataclasses.dataclass(frozen=True)
class EvalBatch:
  """A batch of a complete pass; row r holds pair `pairs[r]`, the rest none."""

  pairs: list[int]
  arrays: dict


def train_batches(
  pipeline: Pipeline,
  start: int,
  stop: int,
  *,
  sharding: jax.sharding.Sharding,
  workers: int = 0,
  prefetch: int = 4,
) -> Generator[dict[str, jax.Array], None, None]:
  """The global batches of steps `start` to `stop - 1`, built ahead.

  Each host builds the rows that `sharding` gives to its devices. `workers`
  processes build them, or two threads of this process where it is 0; the
  batches are the same. The next one goes to the devices while its forerunner
  is used.
  """
  if start >= stop:
    return
  size = pipeline.batch_size
  rows = device.local_rows(sharding, size)
  steps = grain.MapDataset.range(start, stop).map(
    lambda step: pipeline.batch(step, rows)
  )
  if workers:
    steps = steps.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    ).mp_prefetch(_processes(workers, prefetch), end_with_parent)
  else:
    steps = steps.to_iter_dataset(
      grain.ReadOptions(num_threads=2, prefetch_buffer_size=prefetch)
    )
  placed = steps.map(
    lambda batch: device.to_device(batch, rows, sharding, size)
  )
  ahead = ThreadPrefetchIterDataset(placed, prefetch_buffer_size=1)
  with contextlib.closing(iter(ahead)) as batches:
    # The thread that begins here starts the processes.
    with sheltered():
      batches.start_prefetch()
    yield from batches


def eval_batches(
  pairs: Pairs,
  batch_size: int,
  buckets: Sequence[tuple[int, int]],
  *,
  sharding: jax.sharding.Sharding | None = None,
) -> Iterator[EvalBatch]:
  """Every pair once, in the order of the source; the last batch is padded.

  Rows without a pair have segment 0 and weight 0. With `sharding` the arrays
  are global ones, else of numpy.
  """
  total = len(pairs)
  every = np.arange(batch_size, dtype=np.int64)
  rows = every if sharding is None else device.local_rows(sharding, batch_size)
  for first in range(0, total, batch_size):
    members = np.arange(first, min(first + batch_size, total), dtype=np.int64)
    mine = rows[rows < len(members)]
    arrays = collate(
      [pairs[int(i)] for i in members[mine]],
      shape=choose_bucket(pairs, members, buckets),
      tokens=pairs.tokens,
      rows=len(rows),
    )
    if sharding is not None:
      arrays = device.to_device(arrays, rows, sharding, batch_size)
    yield EvalBatch(members.tolist(), arrays)


def _processes(workers: int, prefetch: int) -> grain.MultiprocessingOptions:
  # Grain's processes read absl's flags, which only absl.app.run has parsed.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  return grain.MultiprocessingOptions(
    num_workers=workers,
    per_worker_buffer_size=max(1, prefetch // workers),
  )
