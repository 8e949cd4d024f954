"""Checkpoints of a pair, or of its two sides, into the stored tree."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jaxtyping import Array, Key

from encdec.config import Role
from encdec.hub.configs import load_side_config, stack_config
from encdec.hub.files import Origin
from encdec.hub.layers import take_layers
from encdec.hub.report import LoadingReport
from encdec.hub.weights import Checkpoint, Place, load
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import Params


def initial_params(
  module: FlaxEncoderDecoderModule,
  key: Key[Array, ""],
  *,
  encoder: str | None,
  decoder: str | None,
  layers: Mapping[str, Sequence[int]] | None = None,
  place: Place | None = None,
  initialise_missing: bool = False,
  **where: Any,
) -> tuple[Params, LoadingReport]:
  """The tree that training starts from.

  Args:
    key: of what is drawn: a side without a checkpoint, cross-attention, the
      projection between widths. Drawn leaves equal `init_params(module, key)`.
    encoder, decoder: a folder or Hub id whose weights are read, a base model's
      or one with a language-model head; None: the side is drawn.
    layers: by side, the numbers of the checkpoint's layers that are taken, in
      their order; none: all.
    place: takes each leaf's path and host array as soon as it is there, and
      gives what the tree holds; default: the host array.
    initialise_missing: draws what a checkpoint lacks instead of raising.
    **where: the other fields of `Origin`, for both sides.

  Raises:
    WeightFileError, HubError: a checkpoint is unreachable, damaged or does
      not fit the config; the message names the tensors or the file.
  """
  checkpoints = []
  for side, name in (("encoder", encoder), ("decoder", decoder)):
    if name is None:
      continue
    tensors: Any = Origin(name, **where).weights()
    if layers and layers.get(side):
      whole = stack_config(load_side_config(name, **where), Role(side))
      tensors = take_layers(tensors, layers[side], whole)
    checkpoints.append(Checkpoint(tensors, name, side))
  return load(
    module, checkpoints, key, place=place, initialise_missing=initialise_missing
  )


def load_params(
  module: FlaxEncoderDecoderModule,
  name: str,
  *,
  place: Place | None = None,
  **where: Any,
) -> tuple[Params, LoadingReport]:
  """The tree of a saved pair: a folder or a Hub id.

  Raises:
    WeightFileError, HubError: as `initial_params`.
  """
  checkpoint = Checkpoint(Origin(name, **where).weights(), name)
  return load(module, [checkpoint], jax.random.key(0), place=place)
