"""Position tables that are computed, on the host and once a shape."""

import math
from typing import assert_never

import numpy as np
from jaxtyping import Float

from encdec.config import PositionKind, StackConfig


def sinusoids(config: StackConfig) -> Float[np.ndarray, "rows D"]:
  """The float32 table of `max_positions + position_offset` rows.

  Sines fill the first half of the columns, cosines the second. Precision is
  PyTorch's: double for SINUSOIDAL, single for FAIRSEQ.
  """
  rows = config.max_positions + config.position_offset
  match config.position_kind:
    case PositionKind.SINUSOIDAL:
      return _sinusoidal(rows, config.width)
    case PositionKind.FAIRSEQ:
      return _fairseq(rows, config.width, config.pad_token_id)
    case PositionKind.LEARNED:
      raise ValueError(f"{config.name} learns its positions: none is computed")
    case other:
      assert_never(other)


def _sinusoidal(rows: int, width: int) -> Float[np.ndarray, "rows D"]:
  columns = np.arange(width)
  angles = np.arange(rows)[:, None] / np.power(
    10000, 2 * (columns // 2) / width
  )
  table = np.concatenate(
    [np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1
  )
  return table.astype(np.float32)


def _fairseq(
  rows: int, width: int, pad_token_id: int | None
) -> Float[np.ndarray, "rows D"]:
  half = width // 2
  exponents = np.arange(half, dtype=np.float32) * np.float32(
    -math.log(10000) / (half - 1)
  )
  # Rounded from double: numpy's own single exponential is less exact.
  frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
  angles = np.arange(rows, dtype=np.float32)[:, None] * frequencies
  table = np.zeros((rows, width), np.float32)
  table[:, :half] = np.sin(angles)
  table[:, half : 2 * half] = np.cos(angles)
  if pad_token_id is not None and pad_token_id < rows:
    table[pad_token_id] = 0
  return table
