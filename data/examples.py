"""An example: a pair as ids, truncated and ended as training needs it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32


@dataclasses.dataclass(frozen=True)
class Example:
  """Ids of a pair. The target ends with the end token unless truncated."""

  source: Int32[np.ndarray, " S"]
  target: Int32[np.ndarray, " T"]
  truncated_source: bool = False
  truncated_target: bool = False


@dataclasses.dataclass(frozen=True)
class Tokens:
  """The ids that make a batch: what starts and ends a target, what pads.

  `sentence_end` ends each sentence of a source, whose types then alternate;
  None: batches hold no types.
  """

  start: int
  end: int
  source_pad: int
  target_pad: int
  sentence_end: int | None = None

  def as_dict(self) -> dict[str, int]:
    """The ids that there are, by name."""
    values = dataclasses.asdict(self)
    return {name: i for name, i in values.items() if i is not None}


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
  ids = target[: min(max_target_length, len(target) - ends)] if cut else target
  return Example(source, np.asarray(ids, np.int32), truncated, cut)


def truncate(
  ids: Sequence[int], max_length: int, suffix: Sequence[int] = ()
) -> tuple[Int32[np.ndarray, " S"], bool]:
  """`ids` in at most `max_length`, and whether some were dropped.

  The special tokens `suffix` stay at the end, as Hugging Face's truncation
  leaves them. Raises ValueError where not even they fit.
  """
  if len(ids) <= max_length:
    return np.asarray(ids, np.int32), False
  room = max_length - len(suffix)
  if room < 1:
    raise ValueError(
      f"a maximum length of {max_length} leaves no room beside the "
      f"{len(suffix)} special tokens at the end: raise data.max_source_length"
    )
  return np.asarray([*ids[:room], *suffix], np.int32), True
