"""Reading weight files: safetensors, in one file or in shards.

A file is hostile until it is checked: sizes are compared with the file's own
before anything is allocated, and a shard's name cannot leave its folder.
Files are mapped into memory: a tensor costs none until it is copied.
"""

import dataclasses
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Formats that this reader knows by name and cannot read, and the remedy.
_PICKLE = f"a PyTorch pickle; save the model as {SINGLE} with PyTorch"
_FLAX = "of transformers' Flax classes; convert it with hub.from_flax457"
_TENSORFLOW = f"TensorFlow's; save it as {SINGLE} with transformers 4.57"
OTHERS = {
  "pytorch_model.bin": _PICKLE,
  "pytorch_model.bin.index.json": _PICKLE,
  "flax_model.msgpack": _FLAX,
  "flax_model.msgpack.index.json": _FLAX,
  "tf_model.h5": _TENSORFLOW,
  "tf_model.h5.index.json": _TENSORFLOW,
}
# The format's own limit.
_MAX_HEADER = 100_000_000
# What reading damaged JSON, or something else than was expected in it, raises.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
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


class WeightFileError(ValueError):
  """A weight file is absent, damaged or of a format that is not read."""


@dataclasses.dataclass(frozen=True)
class _Tensor:
  file: Path
  dtype: np.dtype
  shape: tuple[int, ...]
  offset: int


class WeightFiles(Mapping[str, np.ndarray]):
  """The tensors of a folder by name; each is a read-only view of its file."""

  def __init__(self, tensors: Mapping[str, _Tensor]):
    self._tensors = dict(tensors)
    self._maps: dict[Path, np.memmap] = {}

  def __getitem__(self, name: str) -> np.ndarray:
    tensor = self._tensors[name]
    if tensor.file not in self._maps:
      self._maps[tensor.file] = np.memmap(tensor.file, np.uint8, "r")
    size = math.prod(tensor.shape)
    # Not safe_open: it copies each tensor whole, which a reader that copies
    # into place has no use for.
    flat = np.frombuffer(
      self._maps[tensor.file], tensor.dtype, size, tensor.offset
    )
    return flat.reshape(tensor.shape)

  def __iter__(self) -> Iterator[str]:
    return iter(self._tensors)

  def __len__(self) -> int:
    return len(self._tensors)


def open_weights(folder: Path) -> WeightFiles:
  """The weights in a folder.

  Raises:
    WeightFileError: there are none that can be read; a shard is missing, a
      file is truncated or damaged. The message names the file or tensor.
  """
  if (folder / SINGLE).is_file():
    return WeightFiles(_read_header(folder / SINGLE))
  if (folder / INDEX).is_file():
    return WeightFiles(_read_sharded(folder))
  for name, kind in OTHERS.items():
    if (folder / name).is_file():
      raise WeightFileError(
        f"{folder / name} is not read: it is {kind}, and load that"
      )
  raise WeightFileError(
    f"{folder} holds no weights: neither {SINGLE} nor {INDEX}"
  )


def shard_names(index: Path) -> dict[str, str]:
  """Tensor name to file name, out of an index file.

  Raises:
    WeightFileError: it is no index, or a name would leave the folder.
  """
  if index.stat().st_size > _MAX_HEADER:
    raise WeightFileError(f"{index} is too large for an index; download again")
  try:
    weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    pairs = list(weight_map.items())
  except _DAMAGE as error:
    raise WeightFileError(
      f"{index} is no index of weights ({error!r}); download it again"
    ) from error
  for tensor, name in pairs:
    # A Hub cache holds links, so only the name itself can be judged.
    if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.\-]*", name):
      raise WeightFileError(
        f"{index}: {tensor!r} lies in {name!r}, which is no plain file name; "
        "do not trust this folder"
      )
  return dict(pairs)


def _read_sharded(folder: Path) -> dict[str, _Tensor]:
  index = shard_names(folder / INDEX)
  tensors: dict[str, _Tensor] = {}
  for name in sorted(set(index.values())):
    file = folder / name
    if not file.is_file():
      held = sorted(tensor for tensor, shard in index.items() if shard == name)
      raise WeightFileError(
        f"{file} is missing; it holds {len(held)} tensors, the first "
        f"{held[0]!r}; copy or download it"
      )
    for tensor, found in _read_header(file).items():
      if tensor in tensors:
        raise WeightFileError(
          f"{tensor!r} lies both in {tensors[tensor].file} and in {file}"
        )
      tensors[tensor] = found
  for tensor, name in index.items():
    if tensor not in tensors or tensors[tensor].file.name != name:
      raise WeightFileError(
        f"{folder / name} does not hold {tensor!r}, which {INDEX} promises"
      )
  return tensors


def _read_header(file: Path) -> dict[str, _Tensor]:
  """The tensors of one file, each of which lies wholly within it."""
  size = file.stat().st_size
  with open(file, "rb") as stream:
    start = stream.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(_MAX_HEADER, size - 8):
      raise WeightFileError(
        f"{file} is truncated or no safetensors file: {size} bytes, of which "
        f"the header claims {length}; download or copy it again"
      )
    header = stream.read(length)
  try:
    entries = json.loads(header.decode("utf-8"), object_pairs_hook=_once)
    written_by = (entries.pop("__metadata__", None) or {}).get("format")
    tensors = {
      name: _entry(file, name, entry, length + 8)
      for name, entry in entries.items()
    }
  except WeightFileError:
    raise
  except _DAMAGE as error:
    raise WeightFileError(
      f"{file} has a damaged header ({error!r}); download or copy it again"
    ) from error
  if written_by == "flax":
    raise WeightFileError(
      f"{file} was written by transformers' Flax classes, whose tree differs; "
      "convert it with encdec.hub.from_flax457"
    )
  _check_extents(file, size, length + 8, tensors)
  return tensors


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """A JSON object that names nothing twice."""
  if len(found := dict(pairs)) != len(pairs):
    names = [name for name, _ in pairs]
    raise ValueError(f"named twice: {max(names, key=names.count)!r}")
  return found


def _entry(file: Path, name: str, entry: Any, base: int) -> _Tensor:
  if entry["dtype"] not in DTYPES:
    raise WeightFileError(
      f"{file}: {name!r} has dtype {entry['dtype']!r}; known are "
      f"{', '.join(DTYPES)}"
    )
  shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
  numbers = (*shape, begin, end)
  # Numpy knows as many axes, and no larger numbers.
  if len(shape) > 64 or any(
    type(n) is not int or not 0 <= n < 1 << 63 for n in numbers
  ):
    raise ValueError(f"{name}: shape {shape}, offsets {begin} to {end}")
  dtype = DTYPES[entry["dtype"]]
  if end - begin != math.prod(shape) * dtype.itemsize:
    raise ValueError(f"{name}: {end - begin} bytes are not {shape} {dtype}")
  return _Tensor(file, dtype, shape, base + begin)


def _check_extents(
  file: Path, size: int, start: int, tensors: Mapping[str, _Tensor]
) -> None:
  """Tensors follow each other without overlap and end within the file."""
  last, last_name = start, "the header"
  for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
    end = tensor.offset + math.prod(tensor.shape) * tensor.dtype.itemsize
    if tensor.offset < last:
      raise WeightFileError(f"{file}: {name!r} overlaps {last_name!r}")
    if end > size:
      raise WeightFileError(
        f"{file} is truncated: {name!r} ends at byte {end}, the file at "
        f"{size}; download or copy it again"
      )
    last, last_name = end, name
