"""The files of a URI: found by name or glob, and read by place.

Files that end in .gz or .zst cannot be read by place: they are unpacked,
when they are first read, into one file without a name in the folder for
temporary files (TMPDIR), which vanishes with its process. A process to which
they are sent reads that file too.
"""

import functools
import glob
import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from data.io.digests import text_digest
from data.io.error_text import fault

_CODECS = {".gz": "gzip", ".zst": "zstd"}
_CHUNK = 1 << 20
# A line is held in memory; what unpacks to more, without an end, is not.
MAX_LINE = 1 << 26
# Files open at a time: a glob may name more than a process may have.
_OPEN = 32


class Line(NamedTuple):
  """A line, its end included; `raw` is None where it exceeds MAX_LINE."""

  number: int
  offset: int
  size: int
  raw: bytes | None


def find(scheme: str, location: str) -> tuple[str, ...]:
  """The files that a path or glob names, sorted; ** goes into folders."""
  uri = f"{scheme}:{location}"
  # A name may hold what a glob would take for a pattern.
  if os.path.isfile(location):
    return (location,)
  if os.path.exists(location):
    raise ValueError(
      f"{uri}: not a file; name one file, or those of a folder as "
      f"{os.path.join(location, '*')}"
    )
  if not glob.has_magic(location):
    raise FileNotFoundError(
      f"{uri}: there is no such file (from {os.getcwd()}); fix the path"
    )
  paths = sorted(filter(os.path.isfile, glob.glob(location, recursive=True)))
  if not paths:
    raise FileNotFoundError(
      f"{uri}: no file matches (from {os.getcwd()}); fix the pattern"
    )
  return tuple(paths)


def digest_of(digests: Sequence[str]) -> str:
  """One digest for files in their order; of one file, its own."""
  if len(digests) == 1:
    return digests[0]
  return text_digest(" ".join(digests))


class Bytes:
  """What some files hold, unpacked, by the file's number and the place.

  The files must not change while they are open. `digests` has that of each
  file whose lines were all read.
  """

  def __init__(self, paths: Sequence[str]):
    self.paths = tuple(paths)
    self.digests = [""] * len(self.paths)
    self._begin()

  def _begin(self) -> None:
    self._lock = threading.Lock()
    self._plain = functools.lru_cache(_OPEN)(_open)
    self._unpacked: _Descriptor | None = None
    # Where each file that was unpacked lies, and the size of what is here.
    self._places: dict[int, tuple[_Descriptor, int, int]] = {}
    self._end = 0

  def __getstate__(self) -> dict[str, Any]:
    lent = None
    if self._unpacked is not None:
      # What others lent to this one they lend to no third.
      lent = (
        _Lent.by_this_process(self._unpacked.number),
        {
          file: (start, size)
          for file, (descriptor, start, size) in self._places.items()
          if descriptor is self._unpacked
        },
      )
    return {"paths": self.paths, "digests": self.digests, "lent": lent}

  def __setstate__(self, state: dict[str, Any]) -> None:
    lent = state.pop("lent")
    self.__dict__.update(state)
    self._begin()
    # Each process that prepares a set would unpack all of it again.
    if lent and (descriptor := lent[0].open()):
      self._places = {file: (descriptor, *at) for file, at in lent[1].items()}

  def lines(self, file: int) -> Iterator[Line]:
    """The lines of a file, which end with a newline and nothing else."""
    descriptor, start, size = self._locate(file)
    stream = io.BufferedReader(_Part(descriptor, start, size), _CHUNK)
    digest, offset, number = hashlib.sha256(), 0, 0
    while raw := stream.readline(MAX_LINE):
      digest.update(raw)
      number, length, whole = number + 1, len(raw), raw
      while len(raw) == MAX_LINE and not raw.endswith(b"\n"):
        # The rest of a line that is too long.
        raw, whole = stream.readline(MAX_LINE), None
        digest.update(raw)
        length += len(raw)
      yield Line(number, offset, length, whole)
      offset += length
    self.digests[file] = digest.hexdigest()[:32]

  def read(self, file: int, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset`."""
    descriptor, start, _ = self._locate(file)
    # Reads at a place, not at a common position: threads do not meet.
    return os.pread(descriptor.number, size, start + offset)

  def _locate(self, file: int) -> tuple["_Descriptor", int, int]:
    """Where the bytes of a file are: descriptor, first place, size."""
    path = self.paths[file]
    if os.path.splitext(path)[1] not in _CODECS:
      descriptor = self._plain(path)
      return descriptor, 0, os.fstat(descriptor.number).st_size
    with self._lock:
      if file not in self._places:
        if self._unpacked is None:
          self._unpacked = _without_name()
        size = _unpack(path, self._unpacked, self._end)
        self._places[file] = (self._unpacked, self._end, size)
        self._end += size
      return self._places[file]


class _Descriptor:
  """An open file, closed when nobody holds it."""

  def __init__(self, number: int):
    self.number = number

  # At the end of a process the module `os` may be gone before.
  def __del__(self, close: Callable[[int], None] = os.close) -> None:
    close(self.number)


class _Lent(NamedTuple):
  """A file without a name that a process has open, for another one here."""

  process: int
  number: int
  device: int
  inode: int

  @classmethod
  def by_this_process(cls, number: int) -> "_Lent":
    stat = os.fstat(number)
    return cls(os.getpid(), number, stat.st_dev, stat.st_ino)

  def open(self) -> _Descriptor | None:
    """None where that process has ended, or lends nothing (not on Linux)."""
    try:
      descriptor = _open(f"/proc/{self.process}/fd/{self.number}")
    except OSError:
      return None
    is_it = os.fstat(descriptor.number)
    same = (is_it.st_dev, is_it.st_ino) == (self.device, self.inode)
    return descriptor if same else None


class _Part(io.RawIOBase):
  """A part of an open file, from its beginning to its end."""

  def __init__(self, descriptor: _Descriptor, start: int, size: int):
    self._descriptor = descriptor
    self._place, self._end = start, start + size

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    view = memoryview(buffer)[: self._end - self._place]
    count = os.preadv(self._descriptor.number, [view], self._place)
    self._place += count
    return count


def _open(path: str) -> _Descriptor:
  return _Descriptor(os.open(path, os.O_RDONLY))


def _without_name() -> _Descriptor:
  with tempfile.TemporaryFile() as file:
    return _Descriptor(os.dup(file.fileno()))


def _unpack(path: str, target: _Descriptor, start: int) -> int:
  """Unpacks a file into `target` from `start`; gives the size."""
  size = 0
  for chunk in _chunks(path):
    try:
      while chunk:
        count = os.pwrite(target.number, chunk, start + size)
        chunk, size = chunk[count:], size + count
    except OSError as error:
      raise OSError(
        error.errno,
        f"{path}: no room to unpack it in {tempfile.gettempdir()} "
        f"({error.strerror}); set TMPDIR to a folder with more, or unpack it",
      ) from error
  return size


def _chunks(path: str) -> Iterator[bytes]:
  codec = _CODECS[os.path.splitext(path)[1]]
  if not os.path.getsize(path):
    raise ValueError(f"{path}: empty, which no {codec} file is; make it again")
  with open(path, "rb") as file:
    try:
      with pa.CompressedInputStream(file, codec) as stream:
        while chunk := stream.read(_CHUNK):
          yield chunk
    except OSError as error:
      raise ValueError(
        f"{path}: damaged or cut short, or no {codec} file "
        f"({fault(error)}); make it again"
      ) from error
