"""Reads safetensors files: a header in JSON, then the tensors."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from encdec.hub.error_text import fault, quoted
from encdec.hub.files.mmap import MappedFile, Tensor, WeightFileError

# The format's own limit.
MAX_HEADER = 100_000_000
# Raised by damaged JSON, and by values in it that are not as expected.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
DTYPES = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}


def read_safetensors(path: Path) -> dict[str, Tensor]:
  """The tensors of one file, each of which lies wholly within it.

  Raises:
    WeightFileError: the file is truncated or damaged.
  """
  file = MappedFile(path)
  length = 0
  if file.size >= 8:
    (length,) = struct.unpack("<Q", file.read(0, 8))
  if not 2 <= length <= min(MAX_HEADER, file.size - 8):
    raise WeightFileError(
      f"{path} is truncated or no safetensors file: {file.size} bytes, of "
      f"which the header claims {length}; download or copy it again"
    )
  try:
    entries = json.loads(
      file.read(8, length).decode("utf-8"), object_pairs_hook=_once
    )
    if not isinstance(entries.pop("__metadata__", {}), Mapping):
      raise ValueError("its metadata are no object")
    extents = _extents(path, entries, length + 8)
  except WeightFileError:
    raise
  except DAMAGE as error:
    raise WeightFileError(
      f"{path} has a damaged header ({fault(error, 8)}); download or copy it "
      "again"
    ) from error
  _check_order(path, length + 8, extents)
  return {
    name: file.tensor(name, dtype, shape, offset)
    for name, (dtype, shape, offset) in extents.items()
  }


_Extent = tuple[np.dtype, tuple[int, ...], int]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """A JSON object without duplicate keys."""
  if len(names_once := dict(pairs)) != len(pairs):
    names = [name for name, _ in pairs]
    raise ValueError(f"named twice: {quoted(max(names, key=names.count))}")
  return names_once


def _extents(
  path: Path, entries: Mapping[str, Any], base: int
) -> dict[str, _Extent]:
  extents = {}
  for name, entry in entries.items():
    try:
      extents[name] = _entry(path, name, entry, base)
    except WeightFileError:
      raise
    except DAMAGE as error:
      raise ValueError(f"{quoted(name)}: {fault(error)}") from error
  return extents


def _entry(path: Path, name: str, entry: Any, base: int) -> _Extent:
  if entry["dtype"] not in DTYPES:
    raise WeightFileError(
      f"{path}: {quoted(name)} has dtype {quoted(entry['dtype'])}; known are "
      f"{', '.join(DTYPES)}"
    )
  shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
  numbers = (*shape, begin, end)
  # Numpy knows as many axes, and no larger numbers.
  if len(shape) > 64 or any(
    type(n) is not int or not 0 <= n < 1 << 63 for n in numbers
  ):
    raise ValueError(
      f"shape {quoted(shape)}, offsets {quoted(begin)} to {quoted(end)}"
    )
  dtype = DTYPES[entry["dtype"]]
  if end - begin != math.prod(shape) * dtype.itemsize:
    raise ValueError(f"{end - begin} bytes are not {quoted(shape)} of {dtype}")
  return dtype, shape, base + begin


def _check_order(
  path: Path, start: int, extents: Mapping[str, _Extent]
) -> None:
  """Raises WeightFileError if tensors overlap."""
  last, last_name = start, "the header"
  for name, (dtype, shape, offset) in sorted(
    extents.items(), key=lambda item: item[1][2]
  ):
    if offset < last:
      raise WeightFileError(
        f"{path}: {quoted(name)} overlaps {quoted(last_name)}"
      )
    last, last_name = offset + math.prod(shape) * dtype.itemsize, name
