"""pytorch_model.bin: where the pickle and the tensors' bytes lie in it.

The file is a zip archive; before PyTorch 1.6 its parts followed each other.
`encdec.hub.files.unpickle` reads the pickle, which says how the tensors are
built of those bytes; neither PyTorch nor any code of the file is run.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

from encdec.hub.error_text import fault, quoted
from encdec.hub.files.mmap import MappedFile, Tensor, WeightFileError, damaged
from encdec.hub.files.unpickle import (
  MAX_PICKLE,
  Pickle,
  Storage,
  StoredTensor,
  read_pickle,
)

_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = 30
_TAR_MAGIC_AT = 257
# The first three pickles of the format before zip archives.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_pytorch(path: Path) -> dict[str, Tensor]:
  """The tensors of one file, each of which lies wholly within it.

  Raises:
    WeightFileError: the file is truncated, damaged, or wants something run.
  """
  file = MappedFile(path)
  if file.read(0, min(4, file.size)) == _ZIP:
    pickle, extents = _read_zip(file)
  else:
    pickle, extents = _read_old_format(file)
  return {
    name: _tensor(file, name, stored, extents)
    for name, stored in pickle.tensors(path).items()
  }


def _tensor(
  file: MappedFile, name: str, stored: StoredTensor, extents: dict[str, range]
) -> Tensor:
  storage = stored.storage
  if storage.key not in extents:
    raise damaged(file.path, f"{name!r} lies in no storage {storage.key!r}")
  extent = extents[storage.key]
  # The number of elements and of bytes must agree.
  if storage.count * storage.dtype.itemsize != len(extent):
    raise damaged(
      file.path,
      f"the storage of {name!r} has {len(extent)} bytes, not "
      f"{storage.count} of {storage.dtype}",
    )
  if not 0 <= stored.offset <= storage.count:
    raise damaged(file.path, f"{name!r} begins at element {stored.offset}")
  start = extent.start + stored.offset * storage.dtype.itemsize
  return file.strided(
    name, storage.dtype, stored.shape, stored.strides, start, extent
  )


def _read_zip(file: MappedFile) -> tuple[Pickle, dict[str, range]]:
  try:
    with zipfile.ZipFile(file.path) as archive:
      members = archive.infolist()
  # zipfile lets many errors through for a damaged directory.
  except (
    zipfile.BadZipFile,
    NotImplementedError,
    ValueError,
    OverflowError,
    IndexError,
    EOFError,
    OSError,
    struct.error,
  ) as error:
    raise WeightFileError(
      f"{file.path} is truncated or no archive of PyTorch's "
      f"({fault(error)}); "
      "download or copy it again"
    ) from error
  extents: dict[str, range] = {}
  for member in members:
    if member.filename in extents:
      raise damaged(file.path, f"{member.filename!r} is in it twice")
    extents[member.filename] = _extent(file, member)
  pickles = [
    n for n in extents if n.count("/") == 1 and _inner(n) == "data.pkl"
  ]
  if len(pickles) != 1:
    raise damaged(file.path, f"it holds {len(pickles)} files data.pkl, not one")
  root = pickles[0].partition("/")[0]
  for name in extents:
    if not name.startswith(f"{root}/"):
      raise damaged(file.path, f"it holds {name!r} beside {root!r}")
  order = extents.get(f"{root}/byteorder")
  if order is not None and file.read(order.start, min(len(order), 9)) != (
    b"little"
  ):
    raise WeightFileError(
      f"{file.path} was written on a big-endian machine; save it again on "
      "another"
    )
  where = extents[pickles[0]]
  if len(where) > MAX_PICKLE:
    raise damaged(file.path, f"its data.pkl has {len(where)} bytes")
  stream = io.BytesIO(file.read(where.start, len(where)))
  pickle = read_pickle(file.path, stream)
  prefix = "data/"
  return pickle, {
    inner.removeprefix(prefix): extent
    for name, extent in extents.items()
    if (inner := _inner(name)).startswith(prefix)
  }


def _inner(name: str) -> str:
  return name.partition("/")[2]


def _extent(file: MappedFile, member: zipfile.ZipInfo) -> range:
  """The byte range of a zip member, which must not be compressed."""
  name = member.filename
  if member.flag_bits & 1 or member.compress_type != zipfile.ZIP_STORED:
    raise WeightFileError(
      f"{file.path}: {quoted(name)} is compressed or encrypted, which "
      "PyTorch's archives are not; do not trust this file"
    )
  header = file.read(member.header_offset, _LOCAL_HEADER)
  name_size, extra_size = struct.unpack("<HH", header[26:30])
  raw = file.read(member.header_offset + _LOCAL_HEADER, name_size)
  if header[:4] != _ZIP or raw != member.orig_filename.encode():
    raise damaged(file.path, f"{name!r} has another name where it lies")
  start = member.header_offset + _LOCAL_HEADER + name_size + extra_size
  file.check(start, member.file_size, repr(name))
  if member.compress_size != member.file_size:
    raise damaged(file.path, f"{name!r} has two sizes")
  return range(start, start + member.file_size)


def _read_old_format(file: MappedFile) -> tuple[Pickle, dict[str, range]]:
  start = file.read(0, min(MAX_PICKLE, file.size))
  if start[_TAR_MAGIC_AT:].startswith(b"ustar"):
    raise WeightFileError(
      f"{file.path} is a tar archive of PyTorch before 0.1.10; save it again "
      "with a later one"
    )
  stream = io.BytesIO(start)
  magic = read_pickle(file.path, stream).value
  if magic != _MAGIC:
    raise WeightFileError(
      f"{file.path} is no weight file of PyTorch's: it begins with another "
      "pickle; save the model's state_dict with torch.save"
    )
  if read_pickle(file.path, stream).value != _PROTOCOL:
    raise damaged(file.path, f"its protocol is not {_PROTOCOL}")
  system = read_pickle(file.path, stream).value
  if not isinstance(system, dict) or system.get("little_endian") is not True:
    raise WeightFileError(
      f"{file.path} was written on a big-endian machine; save it again on "
      "another"
    )
  pickle = read_pickle(file.path, stream)
  keys = read_pickle(file.path, stream).value
  return pickle, _extents(file, pickle, keys, stream.tell())


def _extents(
  file: MappedFile, pickle: Pickle, keys: Any, position: int
) -> dict[str, range]:
  """The byte range of each storage; they are stored in the keys' order."""
  if not isinstance(keys, list) or any(type(key) is not str for key in keys):
    raise damaged(file.path, "it has no list of storages")
  storages: dict[str, Storage] = pickle.storages
  extents: dict[str, range] = {}
  for key in keys:
    if key not in storages or key in extents:
      raise damaged(file.path, f"nothing uses storage {key!r}, or twice")
    (count,) = struct.unpack("<q", file.read(position, 8))
    if count != storages[key].count:
      raise damaged(file.path, f"storage {key!r} has {count} elements")
    size = count * storages[key].dtype.itemsize
    file.check(position + 8, size, f"storage {key!r}")
    extents[key] = range(position + 8, position + 8 + size)
    position += 8 + size
  return extents
