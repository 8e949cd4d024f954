"""Detects and checks which tensors the sides of a checkpoint share."""

import dataclasses

import numpy as np

from encdec.config import EncDecConfig, Share
from encdec.hub.files.lazy_tensors import Tensors
from encdec.hub.weights.loading_report import LoadingError
from encdec.hub.weights.tensor_map import TensorMapping, tensor_mappings


def detect_share(
  tensors: Tensors,
  config: EncDecConfig,
  *,
  most: Share = Share.ALL,
  tied: bool = False,
) -> Share:
  """The most that the sides of a checkpoint can share: what is equal.

  Args:
    tensors: by their composite names.
    config: with `share` none.
    most: what is not looked beyond.
    tied: of what is shared the checkpoint may have one side's name alone.
  """
  order = [Share.NONE, Share.EMBEDDINGS, Share.ALL]
  for share in order[order.index(most) : 0 : -1]:
    if config.share_differences(share):
      continue
    pairs = _pairs(dataclasses.replace(config, share=share))
    least = 1 if tied else 2
    there = (sum(m.name in tensors for m in pair) for pair in pairs)
    if min(there) >= least and _difference(tensors, tensors, pairs) is None:
      return share
  return Share.NONE


def check_shared(
  loaded: Tensors,
  tensors: Tensors,
  config: EncDecConfig,
  where: str,
  unshared: str,
) -> None:
  """Raises LoadingError if a shared tensor differs between the sides.

  Args:
    loaded: what is loaded, by composite names: of the encoder, if of any.
    tensors: a checkpoint's, likewise.
    unshared: the advice to share nothing.
  """
  if pair := _difference(loaded, tensors, _pairs(config)):
    raise LoadingError(
      f"{where}: {pair[1].name} is not equal to {pair[0].name}, though "
      f"share={str(config.share)!r}; name one checkpoint for both sides, or "
      f"{unshared}"
    )


def _pairs(config: EncDecConfig) -> list[tuple[TensorMapping, TensorMapping]]:
  """Both names of each tensor that the sides share, the encoder's first."""
  every = list(tensor_mappings(config))
  first = {m.piece: m for m in every if not m.second}
  return [(first[m.piece], m) for m in every if m.shared]


def _difference(
  first: Tensors,
  second: Tensors,
  pairs: list[tuple[TensorMapping, TensorMapping]],
) -> tuple[TensorMapping, TensorMapping] | None:
  """The first pair whose tensors are both there and not equal."""
  for one, other in pairs:
    if one.name in first and other.name in second:
      if not np.array_equal(first[one.name], second[other.name]):
        return one, other
  return None
