"""The pipeline: the batch of step n, as a pure function of (seed, n)."""

import dataclasses
from collections.abc import Iterator, Sequence

import grain.python as grain
import jax
import numpy as np
from absl import flags
from jaxtyping import Int64

from data import device
from data.encoded import EncodedPairs
from data.examples import Batch, collate
from data.plan import Plan


@dataclasses.dataclass(frozen=True)
class Pipeline:
  """Batches of `batch_size` rows over `pairs`.

  `buckets` are the shapes (S, T) that a batch may have: the smallest that
  holds its longest source and longest target.
  """

  pairs: EncodedPairs
  batch_size: int
  seed: int
  buckets: tuple[tuple[int, int], ...]

  def __post_init__(self):
    everything = np.arange(len(self.pairs))
    # The largest batch there could be must have its bucket.
    choose_bucket(self.pairs, everything, self.buckets)

  def __len__(self) -> int:
    """The number of pairs in an epoch."""
    return len(self.pairs)

  @property
  def plan(self) -> Plan:
    """Which pair stands in which row."""
    return Plan(len(self.pairs), self.batch_size, self.seed)

  @property
  def fingerprint(self) -> str:
    """Hex digest of all that decides the batches."""
    return self.plan.fingerprint(self.pairs.fingerprint, repr(self.buckets))

  def ids(self, step: int) -> list[int]:
    """The records of the source that batch `step` holds, in row order."""
    return self.pairs.records[self.plan.members(step)].tolist()

  def batch(
    self, step: int, rows: Int64[np.ndarray, " R"] | None = None
  ) -> Batch:
    """Batch `step`, or those of its rows alone that `rows` numbers."""
    members = self.plan.members(step)
    shape = choose_bucket(self.pairs, members, self.buckets)
    mine = members if rows is None else members[rows]
    return collate(
      [self.pairs[int(i)] for i in mine], shape=shape, tokens=self.pairs.tokens
    )


@dataclasses.dataclass(frozen=True)
class EvalBatch:
  """A batch of a complete pass; row r holds pair `pairs[r]`, the rest none."""

  pairs: list[int]
  arrays: dict


def make_buckets(
  source_buckets: Sequence[int],
  target_buckets: Sequence[int],
  max_source_length: int,
  max_target_length: int,
) -> tuple[tuple[int, int], ...]:
  """The zipped buckets, smallest first; none given: the maximum lengths."""
  longest = (max_source_length, max_target_length)
  if len(source_buckets) != len(target_buckets):
    raise ValueError(
      f"{len(source_buckets)} data.source_buckets and {len(target_buckets)} "
      "data.target_buckets: they are zipped, give as many of each"
    )
  buckets = tuple(zip(source_buckets, target_buckets, strict=True))
  buckets = buckets or (longest,)
  if not any(s >= longest[0] and t >= longest[1] for s, t in buckets):
    raise ValueError(
      f"no bucket of {buckets} holds data.max_source_length = {longest[0]} "
      f"with data.max_target_length = {longest[1]}: add one"
    )
  return tuple(sorted(set(buckets), key=lambda b: (b[0] * b[1], b)))


def choose_bucket(
  pairs: EncodedPairs,
  members: Int64[np.ndarray, " B"],
  buckets: Sequence[tuple[int, int]],
) -> tuple[int, int]:
  """The first of `buckets` that holds the longest of `members`."""
  source = int(pairs.source_lengths(members).max())
  target = int(pairs.target_lengths(members).max())
  for bucket in buckets:
    if source <= bucket[0] and target <= bucket[1]:
      return bucket
  raise ValueError(
    f"no bucket of {tuple(buckets)} holds {source} source and {target} target "
    "tokens: add one to data.source_buckets and data.target_buckets"
  )


def train_batches(
  pipeline: Pipeline,
  start: int,
  stop: int,
  *,
  sharding: jax.sharding.Sharding,
  workers: int = 0,
  prefetch: int = 4,
) -> Iterator[dict[str, jax.Array]]:
  """The global batches of steps `start` to `stop - 1`, built ahead.

  Each host builds the rows that `sharding` gives to its devices. `workers`
  processes build them, or two threads of this process where it is 0; the
  batches are the same.
  """
  if start >= stop:
    return
  rows = device.local_rows(sharding, pipeline.batch_size)
  steps = grain.MapDataset.range(start, stop).map(
    lambda step: pipeline.batch(step, rows)
  )
  if workers:
    steps = steps.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    ).mp_prefetch(_processes(workers, prefetch))
  else:
    steps = steps.to_iter_dataset(
      grain.ReadOptions(num_threads=2, prefetch_buffer_size=prefetch)
    )
  for batch in steps:
    yield device.to_device(batch, rows, sharding, pipeline.batch_size)


def eval_batches(
  pairs: EncodedPairs,
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
