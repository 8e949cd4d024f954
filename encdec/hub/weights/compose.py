"""Loads a pair's parameters from one checkpoint, or from one for each side."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jaxtyping import Array, Key

from encdec.config import PositionKind, Role, StackConfig
from encdec.hub.configs import load_side_config, read_config, stack_config
from encdec.hub.files.repo import Origin
from encdec.hub.weights.checkpoint_classes import class_names
from encdec.hub.weights.conversion import Checkpoint, load
from encdec.hub.weights.layer_subset import take_layers
from encdec.hub.weights.lazy_params import LeafPlacer
from encdec.hub.weights.loading_report import OF_PYTHON, LoadingReport, Remedies
from encdec.hub.weights.position_tables import extend_checkpoint
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import Params


def initial_params(
  module: FlaxEncoderDecoderModule,
  key: Key[Array, ""],
  *,
  encoder: str | None,
  decoder: str | None,
  layers: Mapping[str, Sequence[int]] | None = None,
  position_extension: str | None = None,
  place: LeafPlacer | None = None,
  initialise_missing: bool = False,
  remedies: Remedies = OF_PYTHON,
  **where: Any,
) -> tuple[Params, LoadingReport]:
  """The parameters that training starts from.

  Args:
    key: of what is drawn: a side without a checkpoint, cross-attention, the
      projection between widths. Drawn leaves equal `init_params(module, key)`.
    encoder, decoder: a folder or Hub id whose weights are read, a base model's
      or one with a language-model head; None: the side is drawn, but for what
      it shares with the other. So is a head that a decoder's `architectures`
      do not promise; see `LoadingReport.warning`.
    layers: by side, the numbers of the checkpoint's layers that are taken, in
      their order; none: all.
    position_extension: how tables of positions become as long as the module's,
      see `encdec.hub.weights.position_tables`; None: a longer one is an error.
    place: takes each leaf's path and host array as soon as it is there, and
      gives what the tree holds; default: the host array.
    initialise_missing: draws what a checkpoint lacks instead of raising.
    remedies: what errors advise.
    **where: the other fields of `Origin`, for both sides.

  Raises:
    WeightFileError, HubError: a checkpoint is unreachable, damaged or does
      not fit the config; the message names the tensors or the file.
  """
  checkpoints = []
  for side, name in (("encoder", encoder), ("decoder", decoder)):
    if name is None:
      continue
    origin = Origin(name, **where)
    promised = class_names(read_config(origin).get("architectures"))
    checkpoint = Checkpoint(origin.weights(), name, side, promised)
    numbers = layers.get(side) if layers else None
    if numbers or position_extension is not None:
      checkpoint = fit_checkpoint(
        checkpoint,
        stack_config(load_side_config(name, **where), Role(side)),
        getattr(module.config, side),
        layers=numbers,
        extension=position_extension,
        option=remedies.extension,
      )
    checkpoints.append(checkpoint)
  return load(
    module,
    checkpoints,
    key,
    place=place,
    initialise_missing=initialise_missing,
    remedies=remedies,
  )


def fit_checkpoint(
  checkpoint: Checkpoint,
  stored: StackConfig,
  wanted: StackConfig,
  *,
  layers: Sequence[int] | None = None,
  extension: str | None = None,
  option: str,
) -> Checkpoint:
  """A checkpoint with the layers and the positions that a side needs.

  Args:
    stored: the side as the checkpoint has it.
    layers: their numbers, of a checkpoint of one side; none: all.
    extension: of a learned table, see `position_tables.EXTENSIONS`.
    option: what `extension` was given as, for messages.

  Raises:
    ValueError: see `position_tables.check_extension`.
  """
  if layers:
    tensors = take_layers(checkpoint.tensors, layers, stored)
    checkpoint = dataclasses.replace(checkpoint, tensors=tensors)
  if stored.max_positions == wanted.max_positions:
    return checkpoint
  if stored.position_kind != PositionKind.LEARNED:
    extension = None
  return extend_checkpoint(option, checkpoint, stored, wanted, extension)


def load_params(
  module: FlaxEncoderDecoderModule,
  name: str,
  *,
  place: LeafPlacer | None = None,
  remedies: Remedies = OF_PYTHON,
  **where: Any,
) -> tuple[Params, LoadingReport]:
  """The parameters of a saved pair in a folder or on the Hub.

  Args:
    place, remedies: see `initial_params`.

  Raises:
    WeightFileError, HubError: as `initial_params`.
  """
  checkpoint = Checkpoint(Origin(name, **where).weights(), name)
  key = jax.random.key(0)
  return load(module, [checkpoint], key, place=place, remedies=remedies)
