"""An example: a pair as ids, and how examples become the arrays of a batch.

Masks, positions and weights come from lengths. No id is ever compared with a
pad id, so that a pad token which is also the end token is harmless.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Example:
  """Ids of a pair. The target ends with the end token unless truncated."""

  source: Int32[np.ndarray, " S"]
  target: Int32[np.ndarray, " T"]
  truncated_source: bool = False
  truncated_target: bool = False


@dataclasses.dataclass(frozen=True)
class Tokens:
  """The ids that make a batch: what starts and ends a target, what pads."""

  start: int
  end: int
  source_pad: int
  target_pad: int


def make_example(
  source_ids: Sequence[int],
  target_ids: Sequence[int],
  *,
  start_id: int,
  end_id: int,
  max_source_length: int,
  max_target_length: int,
  source_suffix: Sequence[int] = (),
  target_suffix: Sequence[int] = (),
) -> Example:
  """Truncates, drops a leading start token and ends the target.

  A truncated source keeps `source_suffix`, the special tokens with which the
  tokenizer ends it; a truncated target keeps neither an end token nor what the
  tokenizer puts after one. Lengths count all special tokens, except the start
  token of the decoder.

  Args:
    target_suffix: the special tokens with which the tokenizer ends a target; an
      end token is added where they have none.
  """
  target = list(target_ids)
  # mBART's are the end token and the language.
  ends = len(target_suffix) if end_id in target_suffix else 0
  if len(target) > ends and target[0] == start_id:
    del target[0]
  if not ends:
    ends = 1
    if not target or target[-1] != end_id:
      target.append(end_id)
  source, truncated = truncate(source_ids, max_source_length, source_suffix)
  cut = len(target) > max_target_length
  kept = target[: min(max_target_length, len(target) - ends)] if cut else target
  return Example(source, np.asarray(kept, np.int32), truncated, cut)


def truncate(
  ids: Sequence[int], max_length: int, suffix: Sequence[int] = ()
) -> tuple[Int32[np.ndarray, " S"], bool]:
  """`ids` in at most `max_length`, and whether some were dropped.

  The special tokens `suffix` stay at the end, as Hugging Face's truncation
  leaves them. Raises ValueError where not even they fit.
  """
  if len(ids) <= max_length:
    return np.asarray(ids, np.int32), False
  kept = max_length - len(suffix)
  if kept < 1:
    raise ValueError(
      f"a maximum length of {max_length} leaves no room beside the "
      f"{len(suffix)} special tokens at the end: raise data.max_source_length"
    )
  return np.asarray([*ids[:kept], *suffix], np.int32), True


def collate(
  examples: Sequence[Example],
  *,
  shape: tuple[int, int],
  tokens: Tokens,
  rows: int | None = None,
  places: Int64[np.ndarray, " P"] | None = None,
) -> Batch:
  """Examples as the eight arrays of a batch, `[B, S]` and `[B, T]`.

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
    "encoder_tokens": encoder.place(sources, tokens.source_pad),
    "encoder_segments": encoder.segments,
    "encoder_positions": encoder.positions,
    "decoder_inputs": decoder.place(inputs, tokens.target_pad),
    "decoder_targets": decoder.place(targets, tokens.target_pad),
    "decoder_segments": decoder.segments,
    "decoder_positions": decoder.positions,
    "decoder_weights": (decoder.segments > 0).astype(np.float32),
  }


def blank_batch(shape: tuple[int, int], rows: int) -> Batch:
  """A batch of zeros, which takes no memory: for its shapes and dtypes.

  Args:
    shape: (S, T).
    rows: B.
  """
  source, target = ((rows, length) for length in shape)
  sizes = {
    "encoder_tokens": source,
    "encoder_segments": source,
    "encoder_positions": source,
    "decoder_inputs": target,
    "decoder_targets": target,
    "decoder_segments": target,
    "decoder_positions": target,
  }
  return {
    **{n: np.broadcast_to(np.int32(0), size) for n, size in sizes.items()},
    "decoder_weights": np.broadcast_to(np.float32(0), target),
  }


def collate_sources(
  sources: Sequence[Int32[np.ndarray, " _"]],
  *,
  length: int,
  pad_id: int,
  rows: int | None = None,
) -> Batch:
  """The encoder's three arrays of a batch, `[B, S]` int32, a source a row."""
  size = (len(sources) if rows is None else rows, length)
  places = np.arange(len(sources), dtype=np.int64)
  layout = _layout(sources, places, size, "source")
  return {
    "encoder_tokens": layout.place(sources, pad_id),
    "encoder_segments": layout.segments,
    "encoder_positions": layout.positions,
  }


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
