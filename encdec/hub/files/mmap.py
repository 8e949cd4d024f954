"""A weight file mapped into memory, and checked views of its tensors.

A file is hostile until it is checked: what it says of sizes is compared with
its own before anything is allocated. A tensor costs nothing until it is copied.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from encdec.hub.error_text import clipped, quoted

# Numpy knows as many axes, and no larger numbers.
_MAX_AXES = 64
_MAX_NUMBER = 1 << 63


class WeightFileError(ValueError):
  """A weight file is missing, damaged or of an unknown format."""


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A read-only tensor in a file, perhaps in several pieces.

  Attributes:
    pieces: flat, or one of the tensor's own shape.
    transposed: the tensor is the transpose of what lies there.
  """

  pieces: tuple[np.ndarray, ...]
  shape: tuple[int, ...]
  transposed: bool = False

  def array(self) -> np.ndarray:
    """The tensor as an array: a view, or a copy of several pieces."""
    whole = self.pieces[0]
    if len(self.pieces) > 1:
      whole = np.concatenate(self.pieces)
    array = whole.reshape(self.shape)
    return array.T if self.transposed else array


class MappedFile:
  """The mapped bytes of a file; reading beyond its end raises.

  Raises:
    WeightFileError: the file is empty.
  """

  def __init__(self, path: Path):
    self.path = path
    self.size = path.stat().st_size
    if not self.size:
      raise WeightFileError(
        f"{path} is truncated: it is empty; download or copy it again"
      )
    self._bytes = np.memmap(path, np.uint8, "r")

  def read(self, start: int, size: int) -> bytes:
    """A copy of `size` bytes.

    Raises:
      WeightFileError: the file ends before.
    """
    self.check(start, size, "what it starts with")
    return self._bytes[start : start + size].tobytes()

  def check(self, start: int, size: int, name: str) -> None:
    """Raises WeightFileError where the file does not hold these bytes."""
    if not 0 <= start <= start + size <= self.size:
      raise WeightFileError(
        f"{self.path} is truncated: {clipped(name)} ends at byte "
        f"{start + size}, the file at {self.size}; download or copy it again"
      )

  def tensor(
    self, name: str, dtype: np.dtype, shape: Any, start: int
  ) -> Tensor:
    """A contiguous tensor that begins at byte `start`.

    Raises:
      WeightFileError: its shape is none, or the file ends before it.
    """
    shape = checked_shape(self.path, name, shape)
    count = math.prod(shape)
    self.check(start, count * dtype.itemsize, repr(name))
    flat = np.frombuffer(self._bytes, dtype, count, start if count else 0)
    return Tensor((flat,), shape)

  def strided(
    self,
    name: str,
    dtype: np.dtype,
    shape: Any,
    strides: Any,
    start: int,
    within: range,
  ) -> Tensor:
    """A tensor with strides, which count elements.

    Args:
      start: the byte of the first element.
      within: the bytes that it may lie in, which the file holds.

    Raises:
      WeightFileError: shape or strides are none, or an element lies elsewhere.
    """
    shape = checked_shape(self.path, name, shape)
    strides = _numbers(self.path, name, strides)
    if len(strides) != len(shape):
      raise damaged(self.path, f"{name!r} has {shape} by strides {strides}")
    if not math.prod(shape):
      return self.tensor(name, dtype, shape, 0)
    steps = sum((n - 1) * by for n, by in zip(shape, strides, strict=True))
    end = start + (steps + 1) * dtype.itemsize
    if not within.start <= start <= end <= within.stop:
      raise WeightFileError(
        f"{self.path}: {quoted(name)} of shape {quoted(shape)} by strides "
        f"{quoted(strides)} lies at bytes {start} to {end}, its storage at "
        f"{within.start} to {within.stop}; download or copy it again"
      )
    # An axis of length one is never stepped along; its stride may be anything.
    steps_in_bytes = [
      by * dtype.itemsize if n > 1 else 0
      for n, by in zip(shape, strides, strict=True)
    ]
    flat = np.frombuffer(self._bytes, dtype, steps + 1, start)
    view = np.lib.stride_tricks.as_strided(
      flat, shape, steps_in_bytes, writeable=False
    )
    return Tensor((view,), shape)


def checked_shape(path: Path, name: str, shape: Any) -> tuple[int, ...]:
  """A shape that is checked: whole numbers within numpy's limits.

  Raises:
    WeightFileError: they are something else.
  """
  shape = _numbers(path, name, shape)
  # Without empty axes: numpy multiplies the others all the same.
  if math.prod(n or 1 for n in shape) * 8 >= _MAX_NUMBER:
    raise damaged(path, f"{name!r} has the shape {list(shape)}")
  return shape


def _numbers(path: Path, name: str, values: Any) -> tuple[int, ...]:
  if (
    not isinstance(values, tuple | list)
    or len(values) > _MAX_AXES
    or any(type(n) is not int or not 0 <= n < _MAX_NUMBER for n in values)
  ):
    raise damaged(path, f"{name!r} has no shape of numbers")
  return tuple(values)


def damaged(path: Path, what: str) -> WeightFileError:
  """The error for a file with content that no writer produces."""
  return WeightFileError(
    f"{path} is damaged ({clipped(what)}); download or copy it again"
  )
