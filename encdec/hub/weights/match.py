"""A checkpoint's tensors, and what it has of those that a model wants."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from encdec.config import EncDecConfig, StackConfig
from encdec.hub.files.lazy_tensors import RenamedTensors
from encdec.hub.weights import derived_tensors as computed_lib
from encdec.hub.weights import tensor_map as names_lib
from encdec.hub.weights.promises import promise_head
from encdec.hub.weights.report import LoadingError, LoadingReport
from encdec.hub.weights.tensor_map import Slot, arch_of

Tensors = Mapping[str, np.ndarray]
_HEAD = "decoder/head/"
_TOKENS = "embeddings/tokens/embedding"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """Tensors of a whole pair, or of one side.

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
    """Composite name to the file's own."""
    return self.side_names(getattr(config, self.side or "encoder"))

  def side_names(self, stack: StackConfig) -> dict[str, str]:
    """As `names`, of a composite checkpoint's too, by one side's config."""
    if self.side is None:
      return {names_lib.modern(name): name for name in self.tensors}
    return names_lib.in_composite(self.tensors, self.side, stack)

  def by_name(self, config: EncDecConfig) -> Tensors:
    """The tensors under their composite names."""
    return RenamedTensors(self.tensors, self.names(config))


def match(
  checkpoint: Checkpoint,
  wanted: list[Slot],
  shapes: Mapping[str, Any],
  config: EncDecConfig,
) -> tuple[LoadingReport, dict[str, np.ndarray]]:
  """What the checkpoint has of what is wanted; few values are read.

  Args:
    shapes: path to the stored leaf's shape.

  Returns:
    The report, and by composite names what fits.
  """
  own = checkpoint.names(config)
  arrays: dict[str, np.ndarray] = {}
  missing, mismatched = [], []
  aside: set[str] = set()
  aliases = {slot.piece: slot.name for slot in wanted if slot.second}
  for slot in wanted:
    if slot.name in arrays or slot.second:
      continue
    source = (
      own.get(slot.preferred)
      or own.get(slot.name)
      or own.get(aliases.get(slot.piece, ""))
      or own.get(slot.fallback)
    )
    if source is None:
      missing.append(slot)
      continue
    array = checkpoint.tensors[source]
    if names_lib.fits(array, slot, shapes[slot.path].shape):
      arrays[slot.name] = array
    elif checkpoint.side and not slot.side:
      # The decoder was trained behind an encoder of another width.
      aside |= {other.name for other in wanted if not other.side}
    else:
      shape = names_lib.hub_shape(slot, shapes[slot.path].shape)
      mismatched.append((slot.name, tuple(array.shape), shape))
  for slot in wanted:
    if slot.name in aside:
      arrays.pop(slot.name, None)
      missing.append(slot)
  _check_tied(checkpoint, own, config)
  expected = _expected(missing, wanted, checkpoint)
  names = {slot.name for slot in expected}
  computed = computed_lib.found(
    checkpoint.tensors, own, config, checkpoint.where
  )
  used = ({slot.name for slot in wanted} | computed) - aside
  rest = [name for name in own if name not in used]
  unused = [name for name in rest if _known(name, checkpoint.side, config)]
  report = LoadingReport(
    missing=tuple(n for n in unique(s.name for s in missing) if n not in names),
    unexpected=tuple(own[name] for name in rest if name not in unused),
    mismatched=tuple(dict.fromkeys(mismatched)),
    expected=unique(slot.name for slot in expected),
    heads=unique(s.name for s in expected if s.path.startswith(_HEAD)),
    unused=tuple(own[name] for name in unused),
  )
  return report, arrays


def _check_tied(
  checkpoint: Checkpoint, own: Mapping[str, str], config: EncDecConfig
) -> None:
  """Raises LoadingError where a head that is tied has a matrix of its own.

  PyTorch leaves it untied then.
  """
  if checkpoint.side == "encoder" or not config.decoder.tied_head:
    return
  (table,) = (
    slot
    for slot in names_lib.slots(config)
    if slot.side == "decoder" and slot.weight.path == _TOKENS
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
  missing: list[Slot], wanted: list[Slot], checkpoint: Checkpoint
) -> list[Slot]:
  """The missing tensors that a checkpoint of this kind need not hold."""
  parts = ["encoder/pooler/"]
  if checkpoint.side == "decoder":
    parts += ["decoder/layers/cross_attention", "enc_to_dec_proj/"]
    if not promise_head(checkpoint.architectures):
      parts.append(_HEAD)
  lacked = {slot.name for slot in missing}
  found = []
  for part in parts:
    of_part = [
      slot for slot in wanted if slot.path.startswith(part) and not slot.second
    ]
    # All or none: half a cross-attention is a damaged file.
    if all(slot.name in lacked for slot in of_part):
      found += of_part
  return found


def _known(name: str, side: str | None, config: EncDecConfig) -> bool:
  """Whether a tensor that the model does not need is no surprise."""
  part, _, inner = name.partition(".")
  if side and names_lib.is_projection(name):
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
    if outside and inner.split(".")[0] not in names_lib.head_words(stack):
      # The head of another task.
      return True
  return any(
    re.fullmatch(pattern, text)
    for pattern in arch.IGNORED
    for text in (inner, inner.removeprefix(base))
  )


def unique(names: Iterable[str]) -> tuple[str, ...]:
  """Each once, in order."""
  return tuple(dict.fromkeys(names))
