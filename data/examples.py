"""An example: a pair as ids, and how examples become the arrays of a batch.

Masks, positions and weights come from lengths. No id is ever compared with a
pad id, so that a pad token which is also the end token is harmless.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

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
) -> Example:
  """Truncates, drops a leading start token and ends the target.

  A truncated source keeps `source_suffix`, the special tokens with which the
  tokenizer ends it; a truncated target keeps no end token. Lengths count all
  special tokens, except the start token of the decoder.
  """
  target = list(target_ids)
  if target and target[0] == start_id:
    del target[0]
  if not target or target[-1] != end_id:
    target.append(end_id)
  source, truncated = truncate(source_ids, max_source_length, source_suffix)
  return Example(
    source,
    np.asarray(target[:max_target_length], np.int32),
    truncated,
    len(target) > max_target_length,
  )


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
) -> Batch:
  """Examples as the eight arrays of a batch, `[B, S]` and `[B, T]`.

  `shape` is (S, T); `rows` is B, the number of examples by default. Missing
  rows have segment 0 and weight 0 throughout. All int32, `decoder_weights`
  float32. Raises ValueError where an example is longer than `shape`.
  """
  rows = len(examples) if rows is None else rows
  batch = collate_sources(
    [e.source for e in examples],
    length=shape[0],
    pad_id=tokens.source_pad,
    rows=rows,
  )
  targets = [e.target for e in examples]
  inputs = [np.append(np.int32(tokens.start), t[:-1]) for t in targets]
  size = (rows, shape[1])
  segments, positions = _layout(targets, size, "target")
  return batch | {
    "decoder_inputs": _pad(inputs, size, tokens.target_pad),
    "decoder_targets": _pad(targets, size, tokens.target_pad),
    "decoder_segments": segments,
    "decoder_positions": positions,
    "decoder_weights": segments.astype(np.float32),
  }


def collate_sources(
  sources: Sequence[Int32[np.ndarray, " _"]],
  *,
  length: int,
  pad_id: int,
  rows: int | None = None,
) -> Batch:
  """The encoder's three arrays of a batch, `[B, S]` int32."""
  size = (len(sources) if rows is None else rows, length)
  segments, positions = _layout(sources, size, "source")
  return {
    "encoder_tokens": _pad(sources, size, pad_id),
    "encoder_segments": segments,
    "encoder_positions": positions,
  }


def _pad(
  rows: Sequence[np.ndarray], size: tuple[int, int], pad_id: int
) -> Int32[np.ndarray, "B T"]:
  padded = np.full(size, pad_id, np.int32)
  for row, ids in enumerate(rows):
    padded[row, : len(ids)] = ids
  return padded


def _layout(
  rows: Sequence[np.ndarray], size: tuple[int, int], side: str
) -> tuple[Int32[np.ndarray, "B T"], Int32[np.ndarray, "B T"]]:
  """Segments and positions of rows that hold one example each."""
  lengths = np.zeros(size[0], np.int32)
  if len(rows) > size[0]:
    raise ValueError(f"{len(rows)} examples do not fit a batch of {size[0]}")
  lengths[: len(rows)] = [len(ids) for ids in rows]
  if len(rows) and lengths.max() > size[1]:
    raise ValueError(
      f"a {side} of {lengths.max()} tokens does not fit a row of {size[1]}"
    )
  index = np.arange(size[1], dtype=np.int32)[None, :]
  segments = (index < lengths[:, None]).astype(np.int32)
  return segments, index * segments
