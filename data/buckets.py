"""Buckets: the few shapes that batches have, and batches of one bucket."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from data.permutation import epoch_key, feistel
from data.plan import Members

Shape = tuple[int, int]


@runtime_checkable
class Lengths(Protocol):
  """Pairs whose lengths stand in a table."""

  def source_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]: ...

  def target_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]: ...


def make_buckets(
  source_buckets: Sequence[int],
  target_buckets: Sequence[int],
  max_source_length: int,
  max_target_length: int,
) -> tuple[Shape, ...]:
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
  pairs: Lengths,
  members: Int64[np.ndarray, " B"],
  buckets: Sequence[Shape],
) -> Shape:
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


@dataclasses.dataclass(frozen=True)
class BucketBatches:
  """Batches of one bucket each: every pair stands in one of them an epoch.

  A bucket's pairs are `pairs[bounds[b]:bounds[b + 1]]`, in an order of each
  epoch's own. Those that fill no batch stand in the next larger bucket, so
  that the largest alone may have a batch with fewer pairs than rows.
  """

  pairs: Int64[np.ndarray, " N"]
  bounds: Int64[np.ndarray, " M"]
  batch_size: int
  seed: int
  facts: str
  whole: bool = True

  def __len__(self) -> int:
    return int(self._batches().sum())

  def members(
    self, units: Int64[np.ndarray, " U"], epochs: Int64[np.ndarray, " U"]
  ) -> Members:
    """The pairs of one batch; rows without a pair come last."""
    (unit,), (epoch,) = units.tolist(), epochs.tolist()
    ends = np.cumsum(self._batches())
    bucket = int(np.searchsorted(ends, unit, side="right"))
    number = unit - int(ends[bucket] - self._batches()[bucket])
    start, stop = self.bounds[bucket : bucket + 2].tolist()
    first = number * self.batch_size
    last = min(first + self.batch_size, stop - start)
    key = epoch_key(epoch_key(self.seed, epoch), bucket)
    places = feistel(np.arange(first, last, dtype=np.int64), stop - start, key)
    rows = np.arange(last - first, dtype=np.int64)
    return Members(self.pairs[start + places], rows)

  def _batches(self) -> Int64[np.ndarray, " B"]:
    """The number of batches of each bucket."""
    return -(-np.diff(self.bounds) // self.batch_size)


def bucket_batches(
  source_lengths: Int64[np.ndarray, " N"],
  target_lengths: Int64[np.ndarray, " N"],
  *,
  buckets: Sequence[Shape],
  batch_size: int,
  seed: int,
) -> BucketBatches:
  """The batches of pairs of these lengths; `buckets` are smallest first."""
  bucket = np.full(len(source_lengths), -1, np.int64)
  for number, (source, target) in reversed(list(enumerate(buckets))):
    fits = (source_lengths <= source) & (target_lengths <= target)
    bucket[fits] = number
  if (bucket < 0).any():
    pair = int(bucket.argmin())
    raise ValueError(
      f"no bucket of {tuple(buckets)} holds {source_lengths[pair]} source and "
      f"{target_lengths[pair]} target tokens: add one to data.source_buckets "
      "and data.target_buckets"
    )
  for number, (source, target) in enumerate(buckets):
    larger = [
      number + 1 + i
      for i, (s, t) in enumerate(buckets[number + 1 :])
      if s >= source and t >= target
    ]
    here = np.flatnonzero(bucket == number)
    left = len(here) % batch_size
    if larger and left:
      bucket[here[-left:]] = larger[0]
  bounds = np.zeros(len(buckets) + 1, np.int64)
  np.cumsum(np.bincount(bucket, minlength=len(buckets)), out=bounds[1:])
  return BucketBatches(
    np.argsort(bucket, kind="stable"),
    bounds,
    batch_size,
    seed,
    f"bucket {tuple(buckets)}",
  )
