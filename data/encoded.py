"""Encoded pairs: the examples of a source in memory, each tokenised once."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int32, Int64

from data import plan
from data.examples import Example, Tokens, make_example
from data.sources import Source, check_on_bad_record
from data.tokenizers import Tokenizer

_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Counts:
  """What became of a source's records, for a report."""

  pairs: int
  skipped_records: int
  empty_sources: int
  empty_targets: int
  truncated_sources: int
  truncated_targets: int


@dataclasses.dataclass(frozen=True)
class EncodedPairs:
  """Pairs as ids, in the order of the source.

  Pair i is record `records[i]` of `source`. Ids of all pairs lie end to end;
  those of pair i lie between `bounds[i]` and `bounds[i + 1]`.
  """

  source: Source
  tokens: Tokens
  records: Int64[np.ndarray, " N"]
  source_ids: Int32[np.ndarray, " _"]
  source_bounds: Int64[np.ndarray, " M"]
  target_ids: Int32[np.ndarray, " _"]
  target_bounds: Int64[np.ndarray, " M"]
  counts: Counts
  fingerprint: str

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> Example:
    s, t = self.source_bounds, self.target_bounds
    return Example(
      self.source_ids[s[index] : s[index + 1]],
      self.target_ids[t[index] : t[index + 1]],
    )

  def record(self, index: int) -> dict[str, str]:
    """The record that pair `index` was made of."""
    return self.source[int(self.records[index])]

  def source_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    """Tokens of each pair's source."""
    return self.source_bounds[pairs + 1] - self.source_bounds[pairs]

  def target_lengths(
    self, pairs: Int64[np.ndarray, " B"]
  ) -> Int64[np.ndarray, " B"]:
    """Tokens of each pair's target, its end token included."""
    return self.target_bounds[pairs + 1] - self.target_bounds[pairs]

  def take(self, pairs: Int64[np.ndarray, " B"]) -> "EncodedPairs":
    """These pairs alone, in this order; `counts` stay those of all."""
    examples = [self[int(i)] for i in pairs]
    source_ids, source_bounds = _flatten([e.source for e in examples])
    target_ids, target_bounds = _flatten([e.target for e in examples])
    return dataclasses.replace(
      self,
      records=self.records[pairs],
      source_ids=source_ids,
      source_bounds=source_bounds,
      target_ids=target_ids,
      target_bounds=target_bounds,
      fingerprint=_digest(self.fingerprint, "taken", pairs.tobytes()),
    )

  def permute_sources(self, seed: int) -> "EncodedPairs":
    """The same targets, each with the source of another pair.

    The order is one cycle through all pairs: none keeps its own source.
    `record` still gives the record of the target.
    """
    size = len(self)
    if size < 2:
      raise ValueError(f"{size} pairs: sources are permuted among at least 2")
    order = plan.feistel(np.arange(size), size, plan.epoch_key(seed, 0))
    taken = np.empty_like(order)
    taken[order] = np.roll(order, 1)
    ids = [self[int(i)].source for i in taken]
    flat, bounds = _flatten(ids)
    return dataclasses.replace(
      self,
      source_ids=flat,
      source_bounds=bounds,
      fingerprint=_digest(self.fingerprint, "permuted", str(seed)),
    )


def encode_pairs(
  source: Source,
  *,
  source_field: str,
  target_field: str,
  source_tokenizer: Tokenizer,
  target_tokenizer: Tokenizer,
  tokens: Tokens,
  max_source_length: int,
  max_target_length: int,
  on_bad_record: str = "error",
) -> EncodedPairs:
  """Tokenises and truncates every pair of `source`.

  A source without a token of its own (special tokens aside) is a bad record:
  an error, or skipped and counted. Raises ValueError naming the record.
  """
  check_on_bad_record(on_bad_record)
  empty = len(source_tokenizer.prefix) + len(source_tokenizer.suffix)
  records: list[int] = []
  examples: list[Example] = []
  for chunk in _chunks(len(source)):
    texts = [source[i] for i in chunk]
    encoded = zip(
      chunk,
      source_tokenizer.encode_batch([t[source_field] for t in texts]),
      target_tokenizer.encode_batch([t[target_field] for t in texts]),
      strict=True,
    )
    for index, source_ids, target_ids in encoded:
      if len(source_ids) > empty:
        example = make_example(
          source_ids,
          target_ids,
          start_id=tokens.start,
          end_id=tokens.end,
          max_source_length=max_source_length,
          max_target_length=max_target_length,
          source_suffix=source_tokenizer.suffix,
        )
        records.append(index)
        examples.append(example)
      elif on_bad_record == "error":
        raise ValueError(
          f"{source.locate(index)}: the field {source_field!r} has no token "
          "of its own; mend it, or set data.on_bad_record=skip"
        )
  return _gather(source, tokens, records, examples)


def _gather(
  source: Source,
  tokens: Tokens,
  records: Sequence[int],
  examples: Sequence[Example],
) -> EncodedPairs:
  if not examples:
    raise ValueError(
      f"{source.name}: all {len(source)} sources are empty; mend the file"
    )
  source_ids, source_bounds = _flatten([e.source for e in examples])
  target_ids, target_bounds = _flatten([e.target for e in examples])
  arrays = (source_ids, source_bounds, target_ids, target_bounds)
  contents = [array.tobytes() for array in arrays]
  return EncodedPairs(
    source=source,
    tokens=tokens,
    records=np.asarray(records, np.int64),
    source_ids=source_ids,
    source_bounds=source_bounds,
    target_ids=target_ids,
    target_bounds=target_bounds,
    counts=Counts(
      pairs=len(examples),
      skipped_records=source.skipped,
      empty_sources=len(source) - len(examples),
      empty_targets=sum(len(e.target) == 1 for e in examples),
      truncated_sources=sum(e.truncated_source for e in examples),
      truncated_targets=sum(e.truncated_target for e in examples),
    ),
    fingerprint=_digest(source.fingerprint, repr(tokens), *contents),
  )


def _chunks(size: int) -> Iterable[range]:
  for start in range(0, size, _CHUNK):
    yield range(start, min(start + _CHUNK, size))


def _flatten(
  rows: Sequence[np.ndarray],
) -> tuple[Int32[np.ndarray, " _"], Int64[np.ndarray, " M"]]:
  bounds = np.zeros(len(rows) + 1, np.int64)
  np.cumsum([len(row) for row in rows], out=bounds[1:])
  return np.concatenate(rows).astype(np.int32), bounds


def _digest(*parts: str | bytes) -> str:
  digest = hashlib.sha256()
  for part in parts:
    raw = part.encode() if isinstance(part, str) else part
    digest.update(len(raw).to_bytes(8, "big") + raw)
  return digest.hexdigest()[:32]
