"""Reads flax_model.msgpack of transformers' Flax classes: a tree of arrays.

Parsed here because msgpack and flax copy an array's bytes even to skip them.
"""

import math
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from encdec.hub.files.mmap import MappedFile, Tensor, checked_shape, damaged

_MAX_DEPTH = 32
# The most entries of all maps together: a model has some hundreds.
_MAX_ENTRIES = 1 << 20
_MAX_NAME = 1000
_ARRAY = 1
_CHUNKED = "__msgpack_chunked_array__"
# Older versions of flax wrote bfloat16 as two untyped bytes.
_BFLOAT16 = (b"bfloat16", b"V2")
_DTYPES = {
  name.encode(): np.dtype(name).newbyteorder("<")
  for name in ("float64", "float32", "float16", "int64", "int32", "int16")
} | {
  name.encode(): np.dtype(name) for name in ("int8", "uint8", "uint32", "bool")
}
# The first byte of a header: bytes of the size that follows it.
_MAPS = {0xDE: 2, 0xDF: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_STRINGS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_INTEGERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
_SIZES = {1: ">B", 2: ">H", 4: ">I"}


def read_msgpack(path: Path) -> dict[str, Tensor]:
  """The arrays of one file by path, its parts joined by "/".

  Raises:
    WeightFileError: the file is truncated, or holds anything but a tree of
      arrays.
  """
  file = MappedFile(path)
  walker = _Walker(file)
  tree = walker.value("the tree", 0)
  if walker.position != file.size:
    raise damaged(path, f"{file.size - walker.position} bytes are left over")
  if not isinstance(tree, dict):
    raise damaged(path, "it is no tree of arrays")
  tensors: dict[str, Tensor] = {}
  _flatten(path, tree, "", tensors)
  return tensors


def _flatten(
  path: Path, tree: dict[str, Any], prefix: str, tensors: dict[str, Tensor]
) -> None:
  for key, value in tree.items():
    name = f"{prefix}{key}"
    if isinstance(value, dict) and _CHUNKED in value:
      value = _joined(path, name, value)
    if isinstance(value, dict):
      _flatten(path, value, f"{name}/", tensors)
    elif isinstance(value, Tensor) and name not in tensors:
      tensors[name] = value
    else:
      raise damaged(path, f"{name!r} is no array, or is there twice")


def _joined(path: Path, name: str, value: dict[str, Any]) -> Tensor:
  """Joins an array of more than 2**30 bytes, which flax writes in pieces."""
  shape, chunks = value.get("shape"), value.get("chunks")
  if not isinstance(shape, dict) or not isinstance(chunks, dict):
    raise damaged(path, f"{name!r} lacks its shape or its chunks")
  whole = checked_shape(path, name, _in_order(path, name, shape))
  tensors = _in_order(path, name, chunks)
  if not tensors or not all(isinstance(t, Tensor) for t in tensors):
    raise damaged(path, f"{name!r} has no chunks that are arrays")
  pieces = tuple(piece for tensor in tensors for piece in tensor.pieces)
  if len({piece.dtype for piece in pieces}) > 1 or (
    sum(piece.size for piece in pieces) != math.prod(whole)
  ):
    raise damaged(path, f"the chunks of {name!r} do not make up its shape")
  return Tensor(pieces, whole)


def _in_order(path: Path, name: str, values: dict[str, Any]) -> list[Any]:
  """The items of a tuple, which flax writes as a map from index to item."""
  if values.keys() != {str(place) for place in range(len(values))}:
    raise damaged(path, f"{name!r} lacks a part")
  return [values[str(place)] for place in range(len(values))]


class _Walker:
  def __init__(self, file: MappedFile):
    self.file = file
    self.position = 0
    self.entries = 0

  def value(self, name: str, depth: int) -> Any:
    """A map, an array, or a number of a chunked array's description."""
    first = self._byte()
    if (count := self._size(first, 0x80, 0x0F, _MAPS)) is not None:
      return self._map(count, name, depth + 1)
    if first in _EXTENSIONS:
      return self._extension(self._number(_SIZES[_EXTENSIONS[first]]), name)
    if first in _FIXED_EXTENSIONS:
      return self._extension(_FIXED_EXTENSIONS[first], name)
    if first in (0xC2, 0xC3):
      return first == 0xC3
    if (number := self._integer(first)) is not None:
      return number
    raise damaged(self.file.path, f"{name!r} is neither a map nor an array")

  def _map(self, count: int, name: str, depth: int) -> dict[str, Any]:
    self.entries += count
    if depth > _MAX_DEPTH or self.entries > _MAX_ENTRIES:
      raise damaged(self.file.path, f"{name!r} is too deep or too wide")
    entries: dict[str, Any] = {}
    for _ in range(count):
      raw = self._bytes(self._byte(), 0xA0, 0x1F, _STRINGS, "a name")
      try:
        key = raw.decode()
      except UnicodeDecodeError as error:
        raise damaged(self.file.path, f"a name in {name!r}") from error
      if key in entries:
        raise damaged(self.file.path, f"{name!r} holds {key!r} twice")
      entries[key] = self.value(key, depth)
    return entries

  def _extension(self, size: int, name: str) -> Tensor:
    kind = self._byte()
    end = self.position + size
    self.file.check(self.position, size, repr(name))
    if kind != _ARRAY or self._byte() != 0x93:
      raise damaged(self.file.path, f"{name!r} is no array")
    axes = self._size(self._byte(), 0x90, 0x0F, _ARRAYS)
    if axes is None or axes > 64:
      raise damaged(self.file.path, f"{name!r} has no shape")
    shape = [self._integer(self._byte()) for _ in range(axes)]
    word = self._bytes(self._byte(), 0xA0, 0x1F, _STRINGS, "a dtype")
    dtype = _DTYPES.get(word)
    if word in _BFLOAT16:
      dtype = np.dtype(ml_dtypes.bfloat16)
    if dtype is None:
      raise damaged(self.file.path, f"{name!r} has dtype {word!r}")
    first = self._byte()
    if first not in _BINARIES:
      raise damaged(self.file.path, f"{name!r} has no bytes")
    held = self._number(_SIZES[_BINARIES[first]])
    tensor = self.file.tensor(name, dtype, shape, self.position)
    self.position += held
    wanted = math.prod(tensor.shape) * dtype.itemsize
    if held != wanted or self.position != end:
      raise damaged(
        self.file.path, f"{name!r} has {held} bytes, its shape {wanted}"
      )
    return tensor

  def _bytes(
    self, first: int, fixed: int, most: int, longer: dict[int, int], what: str
  ) -> bytes:
    size = self._size(first, fixed, most, longer)
    if size is None or size > _MAX_NAME:
      raise damaged(self.file.path, f"at byte {self.position} is not {what}")
    self.position += size
    return self.file.read(self.position - size, size)

  def _size(
    self, first: int, fixed: int, most: int, longer: dict[int, int]
  ) -> int | None:
    """The size in a header of one type; None: the header is of another type."""
    if fixed <= first <= fixed + most:
      return first - fixed
    return self._number(_SIZES[longer[first]]) if first in longer else None

  def _integer(self, first: int) -> int | None:
    if first < 0x80:
      return first
    return self._number(_INTEGERS[first]) if first in _INTEGERS else None

  def _byte(self) -> int:
    return self._number(">B")

  def _number(self, form: str) -> int:
    size = struct.calcsize(form)
    (number,) = struct.unpack(form, self.file.read(self.position, size))
    self.position += size
    return number
