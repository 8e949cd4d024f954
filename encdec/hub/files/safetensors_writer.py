"""Writes safetensors files, whole or in shards, one tensor at a time."""

import dataclasses
import itertools
import json
import math
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from encdec.hub.files.atomic_write import partial_files, synced, write_text
from encdec.hub.files.host_memory import ScratchBuffer
from encdec.hub.files.safetensors import DTYPES
from encdec.hub.files.weight_files import INDEX, SINGLE

# Bytes of one write: of larger ones the kernel makes larger pages, for which it
# may have to make room first.
_PIECE = 1 << 18
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class TensorToWrite:
  """A tensor to write; `make` gives it, or a view, when its turn comes."""

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  make: Callable[[], np.ndarray]

  @property
  def size(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize


def write_weights(
  folder: Path, tensors: Sequence[TensorToWrite], max_shard_size: int | str
) -> None:
  """Writes one file, or shards and their index where one is not enough.

  Weights that an earlier save left in the folder are replaced; a folder whose
  save was cut off holds the old weights, the new ones, or none.

  Args:
    max_shard_size: bytes of a file, or as "10GB" or "500MiB"; a tensor that is
      larger gets a file of its own.
  """
  shards = _plan(tensors, parse_size(max_shard_size))
  count = len(shards)
  names = [SINGLE]
  if count > 1:
    names = [
      f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)
    ]
  with partial_files([folder / name for name in names]) as partial:
    for path, shard in zip(partial, shards, strict=True):
      write_file(path, shard)
    old = _old_weights(folder)
    if count > 1:
      # Before the shards, so that no reader meets a mixture.
      for path in old:
        path.unlink()
    for path, name in zip(partial, names, strict=True):
      os.replace(path, folder / name)
    if count > 1:
      _write_index(folder, names, shards)
      return
    for path in old:
      if path.name != SINGLE:
        path.unlink()


def _old_weights(folder: Path) -> list[Path]:
  """Weight files of an earlier save, in the order readers look for them."""
  named = [path for path in (folder / INDEX, folder / SINGLE) if path.exists()]
  return named + [
    path
    for path in folder.iterdir()
    if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", path.name)
  ]


def parse_size(size: int | str) -> int:
  """Bytes of "10GB", "500MiB" or a number."""
  if isinstance(size, int):
    return size
  match = re.fullmatch(r"(\d+)\s*([KMGT]?)(i?)B", size.strip(), re.IGNORECASE)
  if not match:
    raise ValueError(
      f"max_shard_size={size!r} is no size; write it like '10GB' or '500MiB'"
    )
  power = " KMGT".index(match[2].upper() or " ")
  return int(match[1]) * (1024 if match[3] else 1000) ** power


def _plan(
  tensors: Sequence[TensorToWrite], limit: int
) -> list[list[TensorToWrite]]:
  shards: list[list[TensorToWrite]] = [[]]
  held = 0
  for tensor in tensors:
    if shards[-1] and held + tensor.size > limit:
      shards.append([])
      held = 0
    shards[-1].append(tensor)
    held += tensor.size
  return shards


def write_file(path: Path, tensors: Sequence[TensorToWrite]) -> None:
  """Writes one file under that name, whatever is there."""
  # Wide types first keep every tensor aligned, as readers expect.
  tensors = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  offset = 0
  for tensor in tensors:
    header[tensor.name] = {
      "dtype": NAMES[tensor.dtype],
      "shape": list(tensor.shape),
      "data_offsets": [offset, offset + tensor.size],
    }
    offset += tensor.size
  text = json.dumps(header, separators=(",", ":")).encode("utf-8")
  text += b" " * (-len(text) % 8)
  with synced(path) as stream, ThreadPoolExecutor(1) as disk:
    stream.write(struct.pack("<Q", len(text)))
    stream.write(text)
    syncing = None
    for tensor, array in zip(tensors, _ahead(tensors), strict=True):
      if array.shape != tensor.shape or array.dtype != tensor.dtype:
        raise ValueError(
          f"{tensor.name}: announced {tensor.shape} {tensor.dtype}, made "
          f"{array.shape} {array.dtype}"
        )
      content = array.reshape(-1).view(np.uint8).data
      for start in range(0, len(content), _PIECE):
        stream.write(content[start : start + _PIECE])
      if syncing is None or syncing.done():
        syncing = _sync(disk, stream, syncing)
    if syncing is not None:
      syncing.result()


def _sync(
  disk: ThreadPoolExecutor, stream: BinaryIO, before: Future[None] | None
) -> Future[None]:
  """Syncs the bytes written so far to the disk, while more are written.

  An error of the disk is told once: to the call before, not to the last one.
  """
  if before is not None:
    before.result()
  return disk.submit(os.fsync, stream.fileno())


def _ahead(tensors: Sequence[TensorToWrite]) -> Iterator[np.ndarray]:
  """The tensors as contiguous arrays, each made while the last is written."""
  scratches = itertools.cycle((ScratchBuffer(), ScratchBuffer()))

  def make(tensor: TensorToWrite) -> np.ndarray:
    return next(scratches).contiguous(tensor.make())

  with ThreadPoolExecutor(1) as pool:
    following = None
    for tensor in tensors:
      made, following = following, pool.submit(make, tensor)
      if made is not None:
        yield made.result()
    if following is not None:
      yield following.result()


def _write_index(
  folder: Path, names: Sequence[str], shards: Sequence[Sequence[TensorToWrite]]
) -> None:
  weight_map = {
    tensor.name: name
    for name, shard in zip(names, shards, strict=True)
    for tensor in shard
  }
  total = sum(tensor.size for shard in shards for tensor in shard)
  write_text(
    folder / INDEX,
    json.dumps(
      {"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2
    )
    + "\n",
  )
