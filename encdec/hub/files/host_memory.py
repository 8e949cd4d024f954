"""Fast transposed copies, a reusable buffer and page-aligned zeros on the host.

All of numpy: weight files are read into and written from such memory.
"""

import math
import mmap
from typing import Any

import numpy as np
from jaxtyping import Num

# Rows of the source at a time: few enough that what is written stays in the
# cache, many enough to fill its lines. Numpy alone takes two to five times as
# long.
_ROWS = 16


def copy_transposed(
  target: Num[np.ndarray, "A B"], source: Num[np.ndarray, "B A"]
) -> None:
  """Writes the transpose of `source` into `target`."""
  for start in range(0, len(source), _ROWS):
    target[:, start : start + _ROWS] = source[start : start + _ROWS].T


class ScratchBuffer:
  """One buffer for copies made in turn: fresh memory costs page faults."""

  def __init__(self):
    self._bytes = np.empty(0, np.uint8)

  def contiguous(self, array: np.ndarray) -> np.ndarray:
    """The array in C order: itself, or a copy valid until the next call."""
    if array.flags.c_contiguous:
      return array
    if array.nbytes > self._bytes.size:
      self._bytes = np.empty(array.nbytes, np.uint8)
    held = self._bytes[: array.nbytes].view(array.dtype).reshape(array.shape)
    if array.ndim == 2 and array.flags.f_contiguous:
      copy_transposed(held, array.T)
    else:
      held[...] = array
    return held


def aligned_zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
  """Zeros that begin at a page, as XLA wants its buffers.

  On a CPU `jax.device_put` then uses them as they are, and no leaf is in memory
  twice. Numpy's own zeros would ask for huge pages, for which the kernel may
  have to make room first: with fragmented memory that takes five times as long
  as to fill them. Padding rows of a vocabulary stay zero.
  """
  count = math.prod(shape)
  memory = mmap.mmap(
    -1,
    max(1, count * np.dtype(dtype).itemsize),
    flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
  )
  return np.frombuffer(memory, dtype, count).reshape(shape)
