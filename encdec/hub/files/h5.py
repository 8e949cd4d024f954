"""Reads tf_model.h5, the HDF5 files of transformers' TensorFlow classes.

Of the format this knows what h5py writes for Keras: groups of the first kind,
and numbers that lie in one piece, neither packed nor elsewhere. Read here and
not by the HDF5 library, which is not made for files that nobody has checked.
"""

import math
import struct
from pathlib import Path

import numpy as np

from encdec.hub.error_text import clipped
from encdec.hub.files.mmap import MappedFile, Tensor, WeightFileError, damaged

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NOWHERE = (1 << 64) - 1
_MAX_DEPTH = 64
_MAX_NODES = 1 << 20
_MAX_NAME = 1000
# Message types of an object's header.
_SPACE, _LINK_INFO, _TYPE, _EXTERNAL = 0x01, 0x02, 0x03, 0x07
_LINK, _LAYOUT, _FILTERS, _CONTINUED, _TABLE = 0x06, 0x08, 0x0B, 0x10, 0x11
_ELSEWHERE = {
  _EXTERNAL: "values in another file",
  _FILTERS: "compressed values",
  _LINK: "links",
  _LINK_INFO: "groups of the second kind",
}


def read_h5(path: Path) -> dict[str, Tensor]:
  """The arrays of one file by name, without the model's own name in front.

  Raises:
    WeightFileError: the file is truncated, damaged, or of another kind of
      HDF5 than Keras writes.
  """
  file = MappedFile(path)
  if file.read(0, min(8, file.size)) != _SIGNATURE:
    raise damaged(path, "it is no HDF5 file")
  version, _, _, _, _, offsets, lengths = struct.unpack("<7B", file.read(8, 7))
  if version > 1 or (offsets, lengths) != (8, 8):
    raise _unknown(path, f"the file's layout {version}")
  # After the node sizes, of which the second version has one more.
  entry = file.read(24 + 4 * version + 4 * 8, 16)
  reader = _Reader(file)
  reader.visit(struct.unpack("<8xQ", entry)[0], "", 0)
  return _without_model(reader.tensors)


def _without_model(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
  """Strips the layer's and model's names that Keras puts before each name."""
  split = {name: name.split("/") for name in tensors}
  if all(len(s) > 3 and s[0] == s[2] for s in split.values()):
    return {"/".join(split[name][2:]): tensors[name] for name in tensors}
  return tensors


def _unknown(path: Path, what: str) -> WeightFileError:
  return WeightFileError(
    f"{path} has {clipped(what)}, which Keras does not write; save the model "
    "as safetensors with transformers 4.57"
  )


class _Reader:
  """Follows groups from the first one; each object is visited once."""

  def __init__(self, file: MappedFile):
    self.file = file
    self.tensors: dict[str, Tensor] = {}
    self.seen: set[int] = set()

  def _once(self, address: int, name: str) -> None:
    """Refuses an object visited before: hostile files may have cycles."""
    if address in self.seen or len(self.seen) > _MAX_NODES:
      raise damaged(self.file.path, f"{name!r} leads to what was seen before")
    self.seen.add(address)

  def visit(self, address: int, name: str, depth: int) -> None:
    """Visits a group's members, or records an array."""
    if depth > _MAX_DEPTH:
      raise damaged(self.file.path, f"{name!r} lies too deep")
    self._once(address, name)
    messages = self._messages(address, name)
    if _TABLE in messages:
      tree, heap = self._unpack("<QQ", messages[_TABLE], name)
      names = self._heap(heap, name)
      for start, target in self._leaves(tree, name, 0):
        member = self._word(names, start, name)
        self.visit(target, f"{name}/{member}".lstrip("/"), depth + 1)
    elif _LAYOUT in messages:
      self._array(name, messages)
    else:
      raise _unknown(self.file.path, f"{name!r}, neither group nor array")

  def _messages(self, address: int, name: str) -> dict[int, bytes]:
    """The header messages that we read, by kind, at most one each."""
    version, count, size = struct.unpack(
      "<BxHxxxxI", self.file.read(address, 12)
    )
    if version != 1:
      raise _unknown(self.file.path, f"a header of another kind at {name!r}")
    messages: dict[int, bytes] = {}
    blocks = [(address + 16, size)]
    while blocks and count > 0:
      position, size = blocks.pop(0)
      self.file.check(position, size, repr(name))
      end = position + size
      while position + 8 <= end and count > 0:
        kind, length = struct.unpack("<HH", self.file.read(position, 4))
        position += 8
        if kind in _ELSEWHERE:
          raise _unknown(self.file.path, f"{_ELSEWHERE[kind]} at {name!r}")
        if kind in (_SPACE, _TYPE, _LAYOUT, _TABLE, _CONTINUED):
          content = self.file.read(position, length)
          if kind == _CONTINUED:
            block = self._unpack("<QQ", content, name)
            self._once(block[0], name)
            blocks.append(block)
          elif messages.setdefault(kind, content) is not content:
            raise damaged(self.file.path, f"{name!r} is described twice")
        position += length
        count -= 1
    return messages

  def _unpack(self, form: str, content: bytes, name: str) -> tuple:
    if len(content) < struct.calcsize(form):
      raise damaged(self.file.path, f"the description of {name!r} ends early")
    return struct.unpack_from(form, content)

  def _heap(self, address: int, name: str) -> range:
    """The byte range of a group's names."""
    signature, size, start = struct.unpack(
      "<4s4xQ8xQ", self.file.read(address, 32)
    )
    if signature != b"HEAP":
      raise damaged(self.file.path, f"{name!r} has no names")
    self.file.check(start, size, f"names of {name!r}")
    return range(start, start + size)

  def _word(self, names: range, offset: int, name: str) -> str:
    start = names.start + offset
    size = min(_MAX_NAME, max(0, names.stop - start))
    word, end, _ = self.file.read(start, size).partition(b"\0")
    try:
      text = word.decode()
    except UnicodeDecodeError as error:
      raise damaged(self.file.path, f"a name in {name!r}") from error
    if not end or not text or "/" in text:
      raise damaged(self.file.path, f"a name in {name!r}")
    return text

  def _leaves(
    self, address: int, name: str, depth: int
  ) -> list[tuple[int, int]]:
    """Each member of a group: its name's offset and its address."""
    if depth > _MAX_DEPTH:
      raise damaged(self.file.path, f"the members of {name!r} lie too deep")
    self._once(address, name)
    signature = self.file.read(address, 8)
    (count,) = struct.unpack("<H", signature[6:])
    if signature[:4] == b"TREE":
      children = [
        struct.unpack("<Q", self.file.read(address + 32 + 16 * n, 8))[0]
        for n in range(count)
      ]
      return [m for c in children for m in self._leaves(c, name, depth + 1)]
    if signature[:4] != b"SNOD":
      raise damaged(self.file.path, f"{name!r} has no members")
    members = []
    for n in range(count):
      start, target, cached = struct.unpack(
        "<QQI", self.file.read(address + 8 + 40 * n, 20)
      )
      # 2 is a soft link, whose target is a name.
      if cached > 1 or target == _NOWHERE:
        raise _unknown(self.file.path, f"links at {name!r}")
      members.append((start, target))
    return members

  def _array(self, name: str, messages: dict[int, bytes]) -> None:
    if _SPACE not in messages or _TYPE not in messages:
      raise damaged(self.file.path, f"{name!r} lacks its shape or its kind")
    version, kind = self._unpack("<BB", messages[_LAYOUT], name)
    # Compact ones, within the header, are too small for a weight.
    if version != 3 or kind != 1:
      raise _unknown(self.file.path, f"values in several pieces at {name!r}")
    start, size = self._unpack("<2xQQ", messages[_LAYOUT], name)
    dtype, shape = (
      self._dtype(name, messages[_TYPE]),
      self._shape(name, messages[_SPACE]),
    )
    if name in self.tensors:
      raise damaged(self.file.path, f"{name!r} is there twice")
    count = math.prod(shape)
    # Arrays that were never written have no address.
    if start == _NOWHERE and count:
      raise damaged(self.file.path, f"{name!r} was never written")
    tensor = self.file.tensor(name, dtype, shape, start if count else 0)
    if size != count * dtype.itemsize:
      raise damaged(self.file.path, f"{name!r} has {size} bytes for {shape}")
    self.tensors[name] = tensor

  def _shape(self, name: str, content: bytes) -> tuple[int, ...]:
    version, axes = self._unpack("<BB", content, name)
    start = {1: 8, 2: 4}.get(version)
    if start is None or axes > 32:
      raise damaged(self.file.path, f"{name!r} has no shape")
    return self._unpack(f"<{start}x{axes}Q", content, name)

  def _dtype(self, name: str, content: bytes) -> np.dtype:
    first, flags, size = self._unpack("<BB2xI", content, name)
    kind = {0: "i" if flags & 8 else "u", 1: "f"}.get(first & 15)
    if kind is None or flags & 1 or size not in (1, 2, 4, 8):
      raise _unknown(self.file.path, f"values of kind {first & 15} at {name!r}")
    if kind == "f":
      # Bits, exponent and fraction: bfloat16 has the size of float16.
      parts = self._unpack("<8xHHBBBB", content, name)
      if parts[:2] != (0, 8 * size) or (size, *parts[2:]) not in _FLOATS:
        raise _unknown(self.file.path, f"unusual numbers at {name!r}")
    return np.dtype(f"<{kind}{size}")


# Size; offset and bits of the exponent, then of the fraction.
_FLOATS = {(2, 10, 5, 0, 10), (4, 23, 8, 0, 23), (8, 52, 11, 0, 52)}
