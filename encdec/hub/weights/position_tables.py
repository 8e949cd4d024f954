"""Extends a checkpoint's position tables."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers import PretrainedConfig

from encdec.config import PositionKind, Role, StackConfig
from encdec.hub.configs import stack_config
from encdec.hub.files.lazy_tensors import TensorView
from encdec.hub.weights import derived_tensors
from encdec.hub.weights.conversion import Checkpoint
from encdec.hub.weights.tensor_map import arch_of

# "repeat_last": new rows equal the last one. "interpolate": the learned rows
# are stretched over the new length, first and last staying what they are.
EXTENSIONS = ("repeat_last", "interpolate")
PATH = "embeddings/positions/embedding"


def extended(
  table: Float[np.ndarray, "P E"], rows: int, reserved: int, extension: str
) -> Float[np.ndarray, "Q E"]:
  """The table extended to `rows` rows, in float32.

  Args:
    reserved: rows before that of position 0, which stay as they are.
  """
  table = table.astype(np.float32)
  if extension == "repeat_last":
    return np.pad(table, ((0, rows - len(table)), (0, 0)), mode="edge")
  learned = table[reserved:]
  at = np.linspace(0, len(learned) - 1, rows - reserved)
  below = np.minimum(at.astype(np.int64), max(0, len(learned) - 2))
  weight = (at - below).astype(np.float32)[:, None]
  above = np.minimum(below + 1, len(learned) - 1)
  between = learned[below] * (1 - weight) + learned[above] * weight
  return np.concatenate([table[:reserved], between])


def check_extension(
  name: str, extension: str | None, old: StackConfig, new: StackConfig
) -> None:
  """Raises ValueError if a side's positions cannot be extended in this way.

  Args:
    name: what `extension` was given as, for messages.
  """
  side = f"the {new.role} ({new.name})"
  if extension not in (None, *EXTENSIONS):
    raise ValueError(
      f"{name}={extension!r} must be one of {', '.join(EXTENSIONS)}"
    )
  if new.max_positions < old.max_positions:
    raise ValueError(
      f"{side} has {old.max_positions} positions, which cannot become "
      f"{new.max_positions}: shorter rows need no shorter table; leave the "
      "length out"
    )
  if old.position_kind != PositionKind.LEARNED:
    if extension is not None:
      raise ValueError(
        f"{name}={extension!r}: the positions of {side} are computed for any "
        "length; leave it out"
      )
  elif new.max_positions == old.max_positions:
    if extension is not None:
      raise ValueError(
        f"{name}={extension!r}: {side} keeps its {old.max_positions} "
        "positions; ask for a greater max_position_embeddings, or leave it out"
      )
  elif extension is None:
    raise ValueError(
      f"{side} has {old.max_positions} positions and {new.max_positions} are "
      f"asked for: say by {name} how its table is extended, "
      f"{' or '.join(EXTENSIONS)}"
    )


def extend_checkpoint(
  name: str,
  checkpoint: Checkpoint,
  old: StackConfig,
  new: StackConfig,
  extension: str | None,
) -> Checkpoint:
  """A checkpoint, of a pair or a side, with positions as `new` has them.

  Raises:
    ValueError: see `check_extension`.
  """
  check_extension(name, extension, old, new)
  arch, tensors, side = arch_of(old), checkpoint.tensors, str(old.role)
  own = checkpoint.side_names(old)
  base = f"{arch.BASE_PREFIX}." if old.role == Role.DECODER else ""
  names = [weight.hub for weight in arch.weights(old) if weight.path == PATH]
  if hasattr(arch, "computed"):
    names += arch.computed(old)
  replaced = {}
  for hub in names:
    # If it is missing, loading reports it.
    if held := own.get(f"{side}.{base}{hub}"):
      what = f"{checkpoint.where} holds {held}"
      replaced[held] = _longer(tensors[held], hub, old, new, extension, what)
  view = TensorView(tensors, {name: name for name in tensors}, replaced)
  return dataclasses.replace(checkpoint, tensors=view)


def _longer(
  table: np.ndarray,
  hub: str,
  old: StackConfig,
  new: StackConfig,
  extension: str | None,
  what: str,
) -> np.ndarray:
  """The table for `new`; the stored one if its shape is not that of `old`."""
  if old.position_kind != PositionKind.LEARNED:
    arch = arch_of(old)
    derived_tensors.check_equal(table, arch.computed(old)[hub], what)
    return arch.computed(new)[hub]
  rows = old.max_positions + old.position_offset
  if table.shape != (rows, old.embedding_width) or extension is None:
    return table
  rows = new.max_positions + new.position_offset
  return extended(table, rows, old.position_offset, extension)


def set_max_positions(config: PretrainedConfig, role: Role, count: int) -> None:
  """Sets how many tokens a side's rows may have."""
  values: Any = config.max_position_embeddings
  # RoBERTa counts the rows before that of position 0.
  reserved = values - stack_config(config, role).max_positions
  config.update({"max_position_embeddings": count + reserved})
