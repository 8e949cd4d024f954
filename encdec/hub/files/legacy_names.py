"""Converts tensor names of Flax and TensorFlow files to PyTorch's."""

import re
from collections.abc import Mapping
from pathlib import Path

from encdec.archs import ARCHS
from encdec.hub.files.mmap import Tensor, damaged

_FLAX = {"kernel": "weight", "embedding": "weight", "scale": "weight"}
_TENSORFLOW = {
  "kernel": "weight",
  "embeddings": "weight",
  "gamma": "weight",
  "beta": "bias",
}
_BASES = "|".join({arch.BASE_PREFIX for arch in ARCHS.values()})


def in_pytorch_words(
  path: Path, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
  """The tensors under PyTorch's names; the names tell whose file it is.

  Raises:
    WeightFileError: two names become one.
  """
  if any("/" in name and name.endswith(":0") for name in tensors):
    convert = _of_tensorflow
  elif any(re.search(r"[./]kernel$", name) for name in tensors):
    convert = _of_flax
  else:
    return dict(tensors)
  renamed: dict[str, Tensor] = {}
  for old, tensor in tensors.items():
    name, converted = convert(old, tensor)
    if name in renamed:
      raise damaged(path, f"two tensors are PyTorch's {name!r}")
    renamed[name] = converted
  return renamed


def _of_flax(name: str, tensor: Tensor) -> tuple[str, Tensor]:
  *parents, leaf = re.split("[./]", name)
  return ".".join([*parents, _FLAX.get(leaf, leaf)]), _transposed(tensor, leaf)


def _of_tensorflow(name: str, tensor: Tensor) -> tuple[str, Tensor]:
  """Follows transformers' convert_tf_weight_name_to_pt_weight_name.

  The model's own name, the first level in memory, is gone already.
  """
  *parents, leaf = name.removesuffix(":0").replace("_._", "/").split("/")
  # A layer that stands in for another is named "mlm___cls".
  parents = [parent.rpartition("___")[2] for parent in parents]
  words = ".".join([*parents, _TENSORFLOW.get(leaf, leaf)])
  # A pair's encoder keeps its own prefix there.
  words = re.sub(rf"^encoder\.({_BASES})\.", "encoder.", words)
  if leaf == "bias" and len(tensor.shape) == 2 and tensor.shape[0] == 1:
    tensor = Tensor(tensor.pieces, tensor.shape[1:])
  return words, _transposed(tensor, leaf)


def _transposed(tensor: Tensor, leaf: str) -> Tensor:
  transposed = leaf == "kernel" and len(tensor.shape) == 2
  return Tensor(tensor.pieces, tensor.shape, transposed)
