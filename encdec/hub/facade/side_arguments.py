"""Routes encoder_* and decoder_* keywords, and reads the model of each side."""

import copy
import dataclasses
import inspect
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from encdec.config import PositionKind, Role
from encdec.hub.configs import load_side_config, side_config, stack_config
from encdec.hub.facade.base import ModelBase
from encdec.hub.files.repo import Origin
from encdec.hub.weights.checkpoint_classes import class_names
from encdec.hub.weights.compose import fit_checkpoint
from encdec.hub.weights.conversion import Checkpoint, tensors_to_write
from encdec.hub.weights.layer_subset import choose_layers
from encdec.hub.weights.pooler import choose_pooler, fit_pooler
from encdec.hub.weights.position_tables import check_extension

# Options of reading files: without a prefix for both sides, with one for one.
FILE_OPTIONS = tuple(f.name for f in dataclasses.fields(Origin)[1:])
# Options of transformers 4's class that the files now answer.
_OBSOLETE = ("from_pt",)


@dataclasses.dataclass(frozen=True)
class Side:
  """One side's config, and the tensors that its parameters are read from."""

  config: PretrainedConfig
  checkpoint: Checkpoint


def route(
  kwargs: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
  """Splits keywords into the encoder's, the decoder's and the pair's own."""
  sides: dict[str, dict[str, Any]] = {"encoder": {}, "decoder": {}}
  own: dict[str, Any] = {}
  for name, value in kwargs.items():
    side, _, rest = name.partition("_")
    if name == "decoder_start_token_id" or side not in sides:
      own[name] = value
    else:
      sides[side][rest] = value
  for name in FILE_OPTIONS:
    if name in own:
      value = own.pop(name)
      for options in sides.values():
        options.setdefault(name, value)
  return sides["encoder"], sides["decoder"], own


def read_side(
  side: str, name: str | os.PathLike[str] | None, options: Mapping[str, Any]
) -> Side:
  """Reads one side from a folder, a Hub id or a ready model.

  Args:
    options: `model`, or `config` and those of reading files; `layers`, the
      numbers of those that are taken; `position_extension`, one of
      `position_tables.EXTENSIONS`; `add_pooling_layer` of an encoder; the
      others change values of the side's config.

  Raises:
    TypeError: an option that the side's config does not have.
    ValueError: neither a name nor a model was given.
  """
  options = {k: v for k, v in options.items() if k not in _OBSOLETE}
  model = options.pop("model", None)
  if model is not None:
    read = _ready(side, model)
  elif name is None:
    raise ValueError(
      f"the {side} is missing: pass its folder or Hub id, or {side}_model="
    )
  else:
    name = os.fspath(name)
    where = {k: options.pop(k) for k in FILE_OPTIONS if k in options}
    config = copy.deepcopy(options.pop("config", None))
    if config is None:
      config = load_side_config(name, **where)
    origin = Origin(name, **where)
    promised = (origin.json("config.json") or {}).get("architectures")
    weights = origin.weights()
    read = Side(config, Checkpoint(weights, name, side, class_names(promised)))
  _choose_pooler(side, read, options)
  before = copy.deepcopy(read.config)
  if (layers := options.pop("layers", None)) is not None:
    choose_layers(f"{side}_layers", layers, read.config, Role(side))
  extension = options.pop("position_extension", None)
  for key, value in options.items():
    if not hasattr(read.config, key):
      raise TypeError(
        f"{side}_{key}={value!r}: the {side}'s config "
        f"({read.config.model_type}) has no {key!r}"
      )
    read.config.update({key: value})
  length = read.config.max_position_embeddings
  if layers is extension is None and length == before.max_position_embeddings:
    return read
  checkpoint = _fitted(side, read, before, layers, extension)
  return Side(read.config, checkpoint)


def _choose_pooler(side: str, read: Side, options: dict[str, Any]) -> None:
  """Gives an encoder a pooler if the keyword or its checkpoint says so."""
  if side == "encoder":
    fit_pooler(read.config, read.checkpoint)
  if (wanted := options.pop("add_pooling_layer", None)) is None:
    return
  if side == "decoder":
    raise TypeError(
      f"decoder_add_pooling_layer={wanted!r}: a decoder has no pooler, and "
      "PyTorch's classes take no such keyword; leave it out"
    )
  choose_pooler(read.config, wanted)


def _fitted(
  side: str, read: Side, before: PretrainedConfig, layers: Any, extension: Any
) -> Checkpoint:
  """The checkpoint, with the layers and positions that are asked for."""
  stored, wanted = (stack_config(c, Role(side)) for c in (before, read.config))
  option = f"{side}_position_extension"
  if extension is not None:
    check_extension(option, extension, stored, wanted)
  elif stored.position_kind == PositionKind.LEARNED:
    # The shapes differ, which is an error unless that is to be ignored.
    wanted = stored
  return fit_checkpoint(
    read.checkpoint,
    stored,
    wanted,
    layers=layers,
    extension=extension,
    option=option,
  )


def _ready(side: str, model: Any) -> Side:
  """A side that is in memory: a pair's, or a PyTorch model."""
  if isinstance(model, ModelBase):
    tensors = {
      tensor.name: tensor.make()
      for tensor in tensors_to_write(model.module.config, model.params, side)
    }
    values = getattr(model.config, side).to_dict()
    config = side_config(values, f"{side}_model")
  elif inspect.isclass(model) or not hasattr(model, "state_dict"):
    raise ValueError(
      f"{side}_model is a {type(model).__name__}; pass a model with its "
      "weights: a PyTorch model of transformers, or a FlaxEncoderDecoderModel"
    )
  else:
    tensors = {k: _numpy(v) for k, v in model.state_dict().items()}
    config = side_config(model.config.to_dict(), f"{side}_model")
  # Its config may name the class that its file was saved from.
  promised = (type(model).__name__,)
  return Side(config, Checkpoint(tensors, f"{side}_model", side, promised))


def _numpy(tensor: Any) -> np.ndarray:
  # Numpy has no bfloat16 of its own; float32 holds every one exactly.
  return tensor.detach().cpu().float().numpy()
