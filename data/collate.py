"""Collating: how examples become the arrays of a batch.

Masks, positions and weights come from lengths. No id is ever compared with a
pad id, so that a pad token which is also the end token is harmless.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int32, Int64

from data import sentences
from data.examples import Example, Tokens

Batch = dict[str, np.ndarray]

_DTYPES = {
  "encoder_tokens": np.int32,
  "encoder_segments": np.int32,
  "encoder_positions": np.int32,
  "decoder_inputs": np.int32,
  "decoder_targets": np.int32,
  "decoder_segments": np.int32,
  "decoder_positions": np.int32,
  "decoder_weights": np.float32,
}
_TYPES = "encoder_types"


def collate(
  examples: Sequence[Example],
  *,
  shape: tuple[int, int],
  tokens: Tokens,
  rows: int | None = None,
  places: Int64[np.ndarray, " P"] | None = None,
) -> Batch:
  """Examples as the arrays of a batch, `[B, S]` and `[B, T]`.

  They are eight, and `encoder_types` where `tokens` have an end of sentences.

  Args:
    shape: (S, T).
    rows: B, the number of examples by default. A row without an example has
      segment 0 and weight 0 throughout.
    places: the row of each example, ascending, one example a row by default.
      Those of a row follow one another as segments 1, 2... on both sides; in
      each, positions start at 0 and decoder inputs with the start token.

  All int32, `decoder_weights` float32. Raises ValueError where a row is longer
  than `shape`.
  """
  rows = len(examples) if rows is None else rows
  if places is None:
    places = np.arange(len(examples), dtype=np.int64)
  sources = [e.source for e in examples]
  targets = [e.target for e in examples]
  inputs = [np.append(np.int32(tokens.start), t[:-1]) for t in targets]
  encoder = _layout(sources, places, (rows, shape[0]), "source")
  decoder = _layout(targets, places, (rows, shape[1]), "target")
  return {
    **_of_sources(encoder, sources, tokens.source_pad, tokens.sentence_end),
    "decoder_inputs": decoder.place(inputs, tokens.target_pad),
    "decoder_targets": decoder.place(targets, tokens.target_pad),
    "decoder_segments": decoder.segments,
    "decoder_positions": decoder.positions,
    "decoder_weights": (decoder.segments > 0).astype(np.float32),
  }


def abstract_batch(
  shape: tuple[int, int], rows: int, *, types: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and dtypes of a batch, without arrays: to lower a step for.

  Args:
    shape: (S, T).
    rows: B.
    types: it has `encoder_types`.
  """
  source, target = shape
  dtypes = _DTYPES | ({_TYPES: np.int32} if types else {})
  return {
    name: jax.ShapeDtypeStruct(
      (rows, source if name.startswith("encoder") else target), dtype
    )
    for name, dtype in dtypes.items()
  }


def collate_sources(
  sources: Sequence[Int32[np.ndarray, " _"]],
  *,
  length: int,
  pad_id: int,
  rows: int | None = None,
  sentence_end: int | None = None,
) -> Batch:
  """The encoder's arrays of a batch, `[B, S]` int32, a source a row.

  Args:
    sentence_end: see `Tokens`.
  """
  size = (len(sources) if rows is None else rows, length)
  places = np.arange(len(sources), dtype=np.int64)
  layout = _layout(sources, places, size, "source")
  return _of_sources(layout, sources, pad_id, sentence_end)


@dataclasses.dataclass(frozen=True)
class _Layout:
  """Where the tokens of a side stand: `index` into the flattened rows."""

  index: Int64[np.ndarray, " _"]
  segments: Int32[np.ndarray, "B T"]
  positions: Int32[np.ndarray, "B T"]

  def place(
    self, ids: Sequence[np.ndarray], pad_id: int
  ) -> Int32[np.ndarray, "B T"]:
    padded = np.full(self.segments.shape, pad_id, np.int32)
    if len(ids):
      padded.reshape(-1)[self.index] = np.concatenate(ids)
    return padded


def _of_sources(
  layout: _Layout,
  sources: Sequence[Int32[np.ndarray, " _"]],
  pad_id: int,
  sentence_end: int | None,
) -> Batch:
  batch = {
    "encoder_tokens": layout.place(sources, pad_id),
    "encoder_segments": layout.segments,
    "encoder_positions": layout.positions,
  }
  if sentence_end is not None:
    types = [sentences.types(ids, sentence_end) for ids in sources]
    batch[_TYPES] = layout.place(types, 0)
  return batch


def _layout(
  ids: Sequence[np.ndarray],
  places: Int64[np.ndarray, " P"],
  size: tuple[int, int],
  side: str,
) -> _Layout:
  """Each of `ids` in its row, after those that the row already has."""
  if len(places) and places[-1] >= size[0]:
    raise ValueError(
      f"{places[-1] + 1} examples do not fit a batch of {size[0]}"
    )
  lengths = np.array([len(each) for each in ids], np.int64)
  before = np.cumsum(lengths) - lengths
  # The first example of the row in which each one stands.
  first = np.searchsorted(places, places)
  column = before - before[first]
  ends = column + lengths
  if len(ids) and ends.max() > size[1]:
    raise ValueError(
      f"a {side} of {ends.max()} tokens does not fit a row of {size[1]}"
    )
  position = np.arange(lengths.sum()) - np.repeat(before, lengths)
  index = np.repeat(places * size[1] + column, lengths) + position
  segment = np.arange(len(ids), dtype=np.int64) - first + 1
  segments, positions = np.zeros(size, np.int32), np.zeros(size, np.int32)
  segments.reshape(-1)[index] = np.repeat(segment, lengths)
  positions.reshape(-1)[index] = position
  return _Layout(index, segments, positions)
