"""A weight table's rows: a Hub tensor, its parameter, and how they convert."""

import dataclasses

import numpy as np

from encdec.config import StackConfig


@dataclasses.dataclass(frozen=True)
class Weight:
  """A row of an architecture's weight table.

  Attributes:
    hub: the Hub's name, relative to the base model, or to the model with the
      head where `base` is False; `{layer}` stands for a layer's number.
    path: the leaf within its side of the tree.
    op: how a layer's Hub tensor becomes the leaf's slice: "copy"; "linear"
      `[out, in]` to `[in, out]`; "heads" `[H K, D]` to `[D, H, K]`;
      "heads_bias" `[H K]` to `[H, K]`; "merge" `[D, H K]` to `[H, K, D]`; and
      for GPT-2's Conv1D, which stores `[in, out]`, "conv_heads" `[D, H K]` to
      `[D, H, K]` and "conv_merge" `[H K, D]` to `[H, K, D]`.
    part, parts: the leaf is this one of so many equal slices of the Hub
      tensor's output axis.
    base: the name is the base model's.
    fallback: the name that a file of a whole sequence-to-sequence model may
      give the tensor in place of `hub`; never written.
    preferred: a name of the same tensor that is read first where a file has it;
      never written.
    alias: a second name of the same leaf: written, read only where the first
      name is absent.
  """

  hub: str
  path: str
  op: str = "copy"
  part: int = 0
  parts: int = 1
  base: bool = True
  fallback: str = ""
  preferred: str = ""
  alias: bool = False

  @property
  def transposed(self) -> bool:
    """Whether the leaf is the transpose of the Hub tensor, in its order."""
    return self.op in ("linear", "heads", "merge")

  @property
  def layered(self) -> bool:
    return "{layer}" in self.hub


def to_tree(
  array: np.ndarray, weight: Weight, config: StackConfig
) -> np.ndarray:
  """The leaf (one layer of it) out of a Hub tensor; a view where it can be.

  Raises:
    ValueError: the tensor does not have the shape that the config implies.
  """
  if weight.parts > 1:
    size = array.shape[-1]
    if size % weight.parts:
      raise ValueError(
        f"{weight.hub}: {size} columns do not split into {weight.parts} parts"
      )
    array = np.split(array, weight.parts, axis=-1)[weight.part]
  width = config.head_width
  if weight.transposed:
    array = array.T
  match weight.op:
    case "copy" | "linear":
      return array
    case "heads" | "conv_heads":
      return array.reshape(array.shape[0], -1, width)
    case "heads_bias":
      return array.reshape(-1, width)
    case "merge" | "conv_merge":
      return array.reshape(-1, width, array.shape[1])
  raise ValueError(f"{weight.hub}: op {weight.op!r} is unknown")


def to_hub(array: np.ndarray, weight: Weight) -> np.ndarray:
  """The inverse of `to_tree` for one part; parts join on the last axis."""
  match weight.op:
    case "heads" | "conv_heads":
      array = array.reshape(array.shape[0], -1)
    case "heads_bias":
      array = array.reshape(-1)
    case "merge" | "conv_merge":
      array = array.reshape(-1, array.shape[-1])
  return array.T if weight.transposed else array


def norm(hub: str, path: str, base: bool = True) -> tuple[Weight, ...]:
  return (
    Weight(f"{hub}.weight", f"{path}/scale", base=base),
    Weight(f"{hub}.bias", f"{path}/bias", base=base),
  )


def linear(
  hub: str, path: str, op: str = "linear", base: bool = True
) -> tuple[Weight, ...]:
  """A dense layer with a bias."""
  bias = "heads_bias" if op == "heads" else "copy"
  return (
    Weight(f"{hub}.weight", f"{path}/kernel", op, base=base),
    Weight(f"{hub}.bias", f"{path}/bias", bias, base=base),
  )
