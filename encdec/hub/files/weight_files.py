"""The weight-file formats, in order of preference, and opening a folder's.

Weights may be one file, or shards with an index. A shard's name cannot leave
its folder; each format's own module checks the rest.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from encdec.hub.error_text import fault, quoted
from encdec.hub.files.h5 import read_h5
from encdec.hub.files.lazy_tensors import WeightFiles, stamp_of
from encdec.hub.files.legacy_names import in_pytorch_words
from encdec.hub.files.mmap import Tensor, WeightFileError
from encdec.hub.files.msgpack import read_msgpack
from encdec.hub.files.pytorch_bin import read_pytorch
from encdec.hub.files.safetensors import DAMAGE, MAX_HEADER, read_safetensors

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# In bytes, on common file systems.
_MAX_FILE_NAME = 255


@dataclasses.dataclass(frozen=True)
class Format:
  """A weight-file format: transformers' file name and our reader."""

  single: str
  read: Callable[[Path], dict[str, Tensor]]

  @property
  def index(self) -> str:
    return f"{self.single}.index.json"


# The first of these that a folder has is read.
FORMATS = (
  Format(SINGLE, read_safetensors),
  Format("pytorch_model.bin", read_pytorch),
  Format("flax_model.msgpack", read_msgpack),
  Format("tf_model.h5", read_h5),
)


def open_weights(folder: Path) -> WeightFiles:
  """The weights in a folder, under PyTorch's names.

  Raises:
    WeightFileError: there are none that can be read; a shard is missing, a
      file is truncated or damaged. The message names the file or tensor.
  """
  for kind in FORMATS:
    path, index = folder / kind.single, folder / kind.index
    if path.is_file():
      stamps = {path: stamp_of(path)}
      return WeightFiles(in_pytorch_words(path, kind.read(path)), stamps)
    if index.is_file():
      names = shard_names(index)
      stamps = {folder / n: stamp_of(folder / n) for n in set(names.values())}
      tensors = in_pytorch_words(index, _read_sharded(index, names, kind))
      return WeightFiles(tensors, stamps)
  raise WeightFileError(
    f"{folder} holds no weights: none of "
    f"{', '.join(kind.single for kind in FORMATS)}, nor an index of one"
  )


def shard_names(index: Path) -> dict[str, str]:
  """Reads an index file: tensor name to file name.

  Raises:
    WeightFileError: it is no index, or a name would leave the folder.
  """
  if index.stat().st_size > MAX_HEADER:
    raise WeightFileError(f"{index} is too large for an index; download again")
  try:
    weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    pairs = list(weight_map.items())
  except DAMAGE as error:
    raise WeightFileError(
      f"{index} is no index of weights ({fault(error)}); download it again"
    ) from error
  for tensor, name in pairs:
    # A Hub cache holds links, so only the name itself can be judged.
    if (
      not isinstance(name, str)
      or not re.fullmatch(r"[\w][\w.\-]*", name)
      or len(name.encode()) > _MAX_FILE_NAME
    ):
      raise WeightFileError(
        f"{index}: {quoted(tensor)} lies in {quoted(name)}, which is no "
        "plain file name; do not trust this folder"
      )
  return dict(pairs)


def _read_sharded(
  index_file: Path, index: Mapping[str, str], kind: Format
) -> dict[str, Tensor]:
  folder = index_file.parent
  tensors: dict[str, Tensor] = {}
  lies_in: dict[str, str] = {}
  for name in sorted(set(index.values())):
    file = folder / name
    if not file.is_file():
      held = sorted(tensor for tensor, shard in index.items() if shard == name)
      raise WeightFileError(
        f"{file} is missing; it holds {len(held)} tensors, the first "
        f"{quoted(held[0])}; copy or download it"
      )
    for tensor, value in kind.read(file).items():
      if tensor in tensors:
        raise WeightFileError(
          f"{quoted(tensor)} lies both in {folder / lies_in[tensor]} and in "
          f"{file}"
        )
      tensors[tensor], lies_in[tensor] = value, name
  for tensor, name in index.items():
    # TensorFlow's index says the model's own name first, its shards do not.
    short = tensor.partition("/")[2]
    if name not in (lies_in.get(tensor), lies_in.get(short)):
      raise WeightFileError(
        f"{folder / name} does not hold {quoted(tensor)}, which "
        f"{index_file.name} promises"
      )
  return tensors
