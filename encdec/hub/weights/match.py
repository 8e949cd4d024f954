"""Matches a checkpoint's tensors with those that a model needs."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from encdec.config import EncDecConfig, StackConfig
from encdec.hub.files.lazy_tensors import Tensors, TensorView
from encdec.hub.weights import derived_tensors, tensor_map
from encdec.hub.weights.checkpoint_classes import has_lm_head
from encdec.hub.weights.loading_report import LoadingError, LoadingReport
from encdec.hub.weights.tensor_map import TensorMapping, arch_of

_HEAD = "decoder/head/"
_TOKENS = "embeddings/tokens/embedding"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """The tensors of a whole pair, or of one side.

  Attributes:
    where: for messages.
    side: "encoder" or "decoder"; None: a composite checkpoint.
    architectures: the classes that its config names, which promise tensors.
  """

  tensors: Tensors
  where: str
  side: str | None = None
  architectures: tuple[str, ...] = ()

  def names(self, config: EncDecConfig) -> dict[str, str]:
    """The file's own name of each tensor, by composite name."""
    return self.side_names(getattr(config, self.side or "encoder"))

  def side_names(self, stack: StackConfig) -> dict[str, str]:
    """As `names`, of a composite checkpoint's too, by one side's config."""
    if self.side is None:
      return {tensor_map.modern(name): name for name in self.tensors}
    return tensor_map.in_composite(self.tensors, self.side, stack)

  def by_name(self, config: EncDecConfig) -> Tensors:
    """The tensors under their composite names."""
    return TensorView(self.tensors, self.names(config))


def match(
  checkpoint: Checkpoint,
  wanted: list[TensorMapping],
  shapes: Mapping[str, Any],
  config: EncDecConfig,
) -> tuple[LoadingReport, dict[str, np.ndarray]]:
  """The checkpoint's tensors that fit the wanted ones; few values are read.

  Args:
    shapes: path to the stored leaf's shape.

  Returns:
    The report, and by composite names what fits.
  """
  own = checkpoint.names(config)
  arrays: dict[str, np.ndarray] = {}
  missing, mismatched = [], []
  aside: set[str] = set()
  aliases = {m.piece: m.name for m in wanted if m.second}
  for mapping in wanted:
    if mapping.name in arrays or mapping.second:
      continue
    source = (
      own.get(mapping.preferred)
      or own.get(mapping.name)
      or own.get(aliases.get(mapping.piece, ""))
      or own.get(mapping.fallback)
    )
    if source is None:
      missing.append(mapping)
      continue
    array = checkpoint.tensors[source]
    if tensor_map.fits(array, mapping, shapes[mapping.path].shape):
      arrays[mapping.name] = array
    elif checkpoint.side and not mapping.side:
      # The decoder was trained behind an encoder of another width.
      aside |= {other.name for other in wanted if not other.side}
    else:
      shape = tensor_map.hub_shape(mapping, shapes[mapping.path].shape)
      mismatched.append((mapping.name, tuple(array.shape), shape))
  for mapping in wanted:
    if mapping.name in aside:
      arrays.pop(mapping.name, None)
      missing.append(mapping)
  _check_tied(checkpoint, own, config)
  expected = _expected(missing, wanted, checkpoint)
  names = {m.name for m in expected}
  computed = derived_tensors.stored_names(
    checkpoint.tensors, own, config, checkpoint.where
  )
  used = ({m.name for m in wanted} | computed) - aside
  rest = [name for name in own if name not in used]
  unused = [name for name in rest if _known(name, checkpoint.side, config)]
  report = LoadingReport(
    missing=tuple(n for n in unique(s.name for s in missing) if n not in names),
    unexpected=tuple(own[name] for name in rest if name not in unused),
    mismatched=tuple(dict.fromkeys(mismatched)),
    expected=unique(m.name for m in expected),
    heads=unique(s.name for s in expected if s.path.startswith(_HEAD)),
    unused=tuple(own[name] for name in unused),
  )
  return report, arrays


def _check_tied(
  checkpoint: Checkpoint, own: Mapping[str, str], config: EncDecConfig
) -> None:
  """Raises LoadingError if a tied head has another matrix than its table.

  PyTorch does not tie it then.
  """
  if checkpoint.side == "encoder" or not config.decoder.tied_head:
    return
  (table,) = (
    m
    for m in tensor_map.tensor_mappings(config)
    if m.side == "decoder" and m.weight.path == _TOKENS
  )
  held = own.get(table.name) or own.get(table.fallback)
  for name in arch_of(config.decoder).TIED_NAMES:
    copy = own.get(f"decoder.{name}")
    if not held or not copy or not name.endswith(".weight"):
      continue
    one, other = checkpoint.tensors[held], checkpoint.tensors[copy]
    if not np.array_equal(one, other):
      raise LoadingError(
        f"{checkpoint.where}: {copy} is not equal to {held}, to which the "
        "decoder's config ties it; set tie_word_embeddings to false in its "
        "config.json"
      )


def _expected(
  missing: list[TensorMapping],
  wanted: list[TensorMapping],
  checkpoint: Checkpoint,
) -> list[TensorMapping]:
  """The missing tensors that a checkpoint of this kind need not hold."""
  parts = ["encoder/pooler/"]
  if checkpoint.side == "decoder":
    parts += ["decoder/layers/cross_attention", "enc_to_dec_proj/"]
    if not has_lm_head(checkpoint.architectures):
      parts.append(_HEAD)
  lacked = {m.name for m in missing}
  expected = []
  for part in parts:
    of_part = [m for m in wanted if m.path.startswith(part) and not m.second]
    # All or none: half a cross-attention is a damaged file.
    if all(m.name in lacked for m in of_part):
      expected += of_part
  return expected


def _known(name: str, side: str | None, config: EncDecConfig) -> bool:
  """Whether a tensor that the model does not need is a known one."""
  part, _, inner = name.partition(".")
  if side and tensor_map.is_projection(name):
    return True
  if part not in ("encoder", "decoder"):
    return False
  stack = getattr(config, part)
  arch = arch_of(stack)
  base = f"{arch.BASE_PREFIX}."
  if inner.startswith("<head>."):
    return True
  if part == "encoder" and inner.startswith("pooler."):
    return True
  if part == "decoder" and inner in arch.TIED_NAMES:
    return True
  if side == "decoder":
    if inner.startswith(f"{base}pooler."):
      return True
    outside = not inner.startswith(base)
    if outside and inner.split(".")[0] not in tensor_map.head_words(stack):
      # The head of another task.
      return True
  return any(
    re.fullmatch(pattern, text)
    for pattern in arch.IGNORED
    for text in (inner, inner.removeprefix(base))
  )


def unique(names: Iterable[str]) -> tuple[str, ...]:
  """The names without duplicates, in order."""
  return tuple(dict.fromkeys(names))
