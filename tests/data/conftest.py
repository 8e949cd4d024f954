"""Small tokenizers and pairs that the tests of data share."""

import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from data import examples, pipeline, sources
from data.mixture import Mixture
from data.store import pairs
from data.store.encoding import Encoding
from data.tokenizers import tokenizer, training

TEXTS = [
  f"{word} number {n} is {'very ' * (n % 5)}{word}"
  for n in range(40)
  for word in ("Apple", "boat", "cloud")
]
BUCKETS = ((8, 3), (16, 5), (32, 12))
PACK_SHAPE = (40, 16)


def make_batches(*parts, weights=(1.0,), **changes) -> pipeline.Pipeline:
  settings = {
    "packing": "none",
    "batch_size": 8,
    "seed": 0,
    "buckets": BUCKETS,
    "pack_shape": PACK_SHAPE,
  }
  return pipeline.make_pipeline(Mixture(parts, weights), **settings | changes)


def epoch_of(batches, start=0) -> tuple[list[list[int]], list[dict]]:
  """Pairs and arrays of the batches of an epoch that begins with `start`."""
  steps = -(-sum(map(len, batches.plan.units)) // batches.plan.units_per_batch)
  numbers = range(start, start + steps)
  return [batches.members(n) for n in numbers], [
    batches.batch(n) for n in numbers
  ]


@pytest.fixture(scope="session")
def wordpiece() -> tokenizer.Tokenizer:
  return training.train_wordpiece(TEXTS, 200)


@pytest.fixture(scope="session")
def bpe() -> tokenizer.Tokenizer:
  return training.train_bpe(TEXTS, 300)


@pytest.fixture
def write_jsonl(tmp_path: pathlib.Path) -> Callable[..., str]:
  """Writes lines, or records as lines; returns the path."""

  def write(*lines, name: str = "pairs.jsonl") -> str:
    path = tmp_path / name
    raw = [
      line if isinstance(line, bytes) else json.dumps(line).encode()
      for line in lines
    ]
    path.write_bytes(b"".join(line + b"\n" for line in raw))
    return str(path)

  return write


@pytest.fixture
def make_encoding(wordpiece, bpe) -> Callable[..., Encoding]:
  """An encoding with the small tokenizers."""
  settings = {
    "source_field": "source",
    "target_field": "target",
    "source_tokenizer": wordpiece,
    "target_tokenizer": bpe,
    "tokens": examples.Tokens(start=0, end=0, source_pad=0, target_pad=0),
    "max_source_length": 32,
    "max_target_length": 12,
  }
  return lambda **changes: Encoding(**settings | changes)


@pytest.fixture
def encode(make_encoding) -> Callable[..., pairs.EncodedPairs]:
  """`encode_pairs` with the small tokenizers."""
  return lambda source, **changes: pairs.encode_pairs(
    source, make_encoding(**changes)
  )


@pytest.fixture
def make_pairs(write_jsonl, encode) -> Callable[..., pairs.EncodedPairs]:
  """The first `size` pairs of unequal lengths; target i ends in number i."""

  def make(size: int, **changes) -> pairs.EncodedPairs:
    records = [
      {
        "source": TEXTS[i % len(TEXTS)] + f" {i}",
        "target": " ".join(["go"] * (i % 4) + [str(i)]),
      }
      for i in range(size)
    ]
    path = write_jsonl(*records, name=f"{size}.jsonl")
    source = sources.open_source(f"jsonl:{path}", fields=("source", "target"))
    return encode(source, **changes)

  return make


@pytest.fixture(scope="session")
def pairs_of_lengths() -> Callable[..., pairs.EncodedPairs]:
  """Pairs of these (source, target) lengths; no id stands twice on a side."""

  source = sources.open_source("dates@train[:1]", fields=("source", "target"))

  def make(lengths, first=1000) -> pairs.EncodedPairs:
    starts = np.cumsum([(0, 0), *lengths], axis=0)
    made = [
      examples.Example(
        *(
          np.arange(start, start + length, dtype=np.int32) + first
          for start, length in zip(before, pair, strict=True)
        )
      )
      for before, pair in zip(starts, lengths, strict=False)
    ]
    return pairs.EncodedPairs(
      source,
      examples.Tokens(start=1, end=2, source_pad=0, target_pad=0),
      records=[0] * len(lengths),
      examples=made,
    )

  return make
