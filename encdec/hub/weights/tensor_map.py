"""Maps each Hub tensor of a pair to the piece of the tree that holds it."""

import dataclasses
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from encdec.archs import ARCHS
from encdec.archs.weight_rule import Weight, to_hub, to_tree
from encdec.config import EncDecConfig, StackConfig
from encdec.hub.files.host_memory import copy_transposed
from encdec.sharing import stored_path

PROJECTION = (
  Weight("enc_to_dec_proj.weight", "enc_to_dec_proj/kernel", "linear"),
  Weight("enc_to_dec_proj.bias", "enc_to_dec_proj/bias"),
)
# The axis of a leaf that is the vocabulary's, which has padding rows.
VOCABULARY_AXIS = {
  "embeddings/tokens/embedding": 0,
  "head/bias": 0,
  "head/kernel": 1,
}


def arch_of(config: StackConfig) -> ModuleType:
  """The module in `encdec/archs` of this side's architecture."""
  for module in ARCHS.values():
    if module.__name__.rpartition(".")[2] == config.name:
      return module
  raise ValueError(f"{config.name!r} is no architecture of encdec/archs")


@dataclasses.dataclass(frozen=True)
class TensorMapping:
  """One tensor of a Hub file, and the piece of a leaf that it fills.

  Attributes:
    name: of the tensor in a composite checkpoint.
    side: whose tensor it is; "" for the projection.
    path: of the leaf in the stored tree, its side included.
    config: the side's; the decoder's for the projection.
    layer: which slice of the leaf; None: the whole leaf.
    preferred, fallback: other names of the tensor, see `Weight`; "": there is
      none.
  """

  name: str
  side: str
  path: str
  weight: Weight
  config: StackConfig
  layer: int | None
  preferred: str = ""
  fallback: str = ""

  @property
  def second(self) -> bool:
    """Whether another tensor fills this piece of the leaf as well."""
    return self.weight.alias or self.shared

  @property
  def shared(self) -> bool:
    """Whether the other side has this tensor too, and it is stored there."""
    return bool(self.side) and not self.path.startswith(f"{self.side}/")

  @property
  def piece(self) -> tuple[str, int | None, int]:
    """The piece of the tree it fills; tensors of one piece must be equal."""
    return self.path, self.layer, self.weight.part

  def cut(self, leaf: Any) -> Any:
    """The piece of the leaf, without padding rows; a view of a numpy leaf."""
    axis = VOCABULARY_AXIS.get(self.weight.path)
    if axis is not None:
      rows = slice(self.config.vocab_size)
      return leaf[rows] if axis == 0 else leaf[:, rows]
    return leaf if self.layer is None else leaf[self.layer]

  def from_hub(self, array: np.ndarray) -> np.ndarray:
    """The piece of the leaf, from the Hub's tensor; a view.

    Raises:
      ValueError: the tensor's shape does not allow it.
    """
    try:
      return to_tree(array, self.weight, self.config)
    except IndexError as error:
      raise ValueError(f"{self.name} has too few axes") from error

  def fill(self, leaf: np.ndarray, array: np.ndarray) -> None:
    """Writes the Hub's tensor into its piece of the leaf."""
    piece = self.cut(leaf)
    if self.weight.transposed and piece.flags.c_contiguous:
      copy_transposed(piece.reshape(array.shape[::-1]), array)
    else:
      piece[...] = self.from_hub(array)

  def to_hub(self, leaf: np.ndarray) -> np.ndarray:
    """The part of the Hub's tensor that this leaf holds."""
    return to_hub(self.cut(leaf), self.weight)


def tensor_mappings(config: EncDecConfig) -> Iterator[TensorMapping]:
  """Every tensor of the pair's Hub file, in the order of the tables."""
  for side in ("encoder", "decoder"):
    stack = getattr(config, side)
    arch = arch_of(stack)
    base = f"{arch.BASE_PREFIX}." if side == "decoder" else ""
    for weight in arch.weights(stack):
      prefix = f"{side}.{base if weight.base else ''}"
      layers = range(stack.stored_layers) if weight.layered else (None,)
      for layer in layers:
        name = weight.hub if layer is None else weight.hub.format(layer=layer)
        path = stored_path(f"{side}/{weight.path}", config.share)
        others = [
          other and prefix + other
          for other in (weight.preferred, weight.fallback)
        ]
        yield TensorMapping(
          prefix + name, side, path, weight, stack, layer, *others
        )
  if config.needs_projection:
    for weight in PROJECTION:
      yield TensorMapping(
        weight.hub, "", weight.path, weight, config.decoder, None
      )


def hub_shape(
  mapping: TensorMapping, leaf_shape: tuple[int, ...]
) -> tuple[int, ...]:
  """The shape that the Hub's tensor should have."""
  leaf = np.broadcast_to(np.zeros((), np.int8), leaf_shape)
  shape = mapping.to_hub(leaf).shape
  return (*shape[:-1], shape[-1] * mapping.weight.parts)


def fits(
  array: np.ndarray, mapping: TensorMapping, leaf_shape: tuple[int, ...]
) -> bool:
  """Whether a Hub's tensor can fill its piece of a leaf of that shape."""
  if array.dtype.kind not in "fV" and array.dtype.name != "bfloat16":
    return False
  try:
    piece = mapping.from_hub(array)
  except ValueError:
    return False
  leaf = np.broadcast_to(np.zeros((), np.int8), leaf_shape)
  return piece.shape == mapping.cut(leaf).shape


def in_composite(
  names: Iterable[str], side: str, config: StackConfig
) -> dict[str, str]:
  """Maps composite names to those of a checkpoint of one side.

  Such a file names the base model's tensors with its prefix ("bert.") or
  without; a head's names stand beside the prefix. Norms may carry the names
  of TensorFlow's ("gamma", "beta"). A decoder out of a pair may bring the
  projection of the encoder's states.
  """
  arch = arch_of(config)
  base = f"{arch.BASE_PREFIX}."
  names = list(names)
  heads = head_words(config)
  prefixed = any(name.startswith(base) for name in names)
  result = {}
  for name in names:
    if side == "decoder" and is_projection(name):
      result[name] = name
      continue
    if prefixed or name.split(".")[0] in heads:
      inner = name.removeprefix(base)
      is_base = name.startswith(base)
    else:
      inner, is_base = name, True
    inner = modern(inner)
    if side == "decoder" and is_base:
      inner = base + inner
    elif side == "encoder" and not is_base:
      inner = f"<head>.{inner}"
    result[f"{side}.{inner}"] = name
  return result


def is_projection(name: str) -> bool:
  """Whether a tensor is of the projection between the sides' widths."""
  return any(name == weight.hub for weight in PROJECTION)


def head_words(config: StackConfig) -> set[str]:
  """The first words of the Hub names of a language-model head."""
  arch = arch_of(config)
  names = [w.hub for w in arch.weights(config) if not w.base]
  return {name.split(".")[0] for name in (*names, *arch.TIED_NAMES)}


def modern(name: str) -> str:
  """A norm's TensorFlow name as PyTorch's name."""
  for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
    if name.endswith(old):
      return name.removesuffix(old) + new
  return name
