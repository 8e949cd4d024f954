"""The parameters that a run starts from: read from checkpoints, or drawn."""

import dataclasses

import jax

from encdec import hub
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import Params
from train import loaded
from train.config import Config

SIDES = ("encoder", "decoder")


def first_params(
  config: Config, module: FlaxEncoderDecoderModule
) -> Params | None:
  """A host's parameters to start from; None: all random, drawn on devices.

  Raises:
    hub.LoadingError: a weight file lacks tensors or has others.
  """
  key = jax.random.key(config.seed)
  if config.model.pair:
    pair = hub.read_pair(hub.Origin(config.model.pair))
    sizes = {
      side: saved.vocab_size
      for side, saved in zip(SIDES, hub.sides_of(pair.config), strict=True)
    }
    read = module.clone(config=_with_vocabularies(module.config, sizes))
    params, report = hub.pair_params(
      read,
      pair,
      key,
      position_extension=config.model.position_extension,
      remedies=loaded.REMEDIES,
    )
  else:
    names = {
      side: config.model[side]
      if config.model[f"{side}_init"] == "pretrained"
      else None
      for side in SIDES
    }
    if not any(names.values()):
      return None
    sizes = {
      side: hub.load_side_config(name).vocab_size
      for side, name in names.items()
      if name
    }
    read = module.clone(config=_with_vocabularies(module.config, sizes))
    params, report = hub.initial_params(
      read,
      key,
      encoder=names["encoder"],
      decoder=names["decoder"],
      layers={side: config.model[f"{side}_layers"] for side in SIDES},
      position_extension=config.model.position_extension,
      remedies=loaded.REMEDIES,
    )
  loaded.tell(report)
  if read.config == module.config:
    return params
  # As resize_token_embeddings draws them by default.
  rows = hub.NewRows("mean")
  return hub.resize_vocabulary(params, read.config, module.config, rows)


def _with_vocabularies(
  config: EncDecConfig, sizes: dict[str, int]
) -> EncDecConfig:
  """The config of what is read, before its vocabularies grow."""
  return dataclasses.replace(
    config,
    **{
      side: dataclasses.replace(getattr(config, side), vocab_size=size)
      for side, size in sizes.items()
    },
  )
