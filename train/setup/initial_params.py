"""The parameters that a run starts from: read from checkpoints, or drawn."""

import dataclasses

import jax
from absl import logging

from encdec import hub
from encdec.config import EncDecConfig, Share
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import Params
from train.config import Config
from train.setting_names import naming
from train.setup.tokenizers import SIDES

# What to change in a configuration when weights do not fit.
REMEDIES = hub.Remedies(
  missing="name a checkpoint that holds them in model.{side}",
  mismatched="or for a longer table of positions set model.position_extension",
  unshared="set model.share = 'none'",
  extension="model.position_extension",
)


def first_params(
  config: Config, module: FlaxEncoderDecoderModule
) -> Params | None:
  """A host's parameters to start from; None: all random, drawn on devices.

  Raises:
    hub.LoadingError: a weight file lacks tensors or has others.
  """
  read = _of_pair if config.model.pair else _of_sides
  with naming(share="model.share"):
    loaded = read(config, module)
  if loaded is None:
    return None
  params, report, read_as = loaded
  _tell(report)
  if read_as == module.config:
    return params
  # As resize_token_embeddings draws them by default.
  rows = hub.NewRows("mean")
  return hub.resize_vocabulary(params, read_as, module.config, rows)


# Parameters, what was found, and the config by which they were read, which has
# the vocabularies of the files.
Read = tuple[Params, hub.LoadingReport, EncDecConfig]


def _of_pair(config: Config, module: FlaxEncoderDecoderModule) -> Read:
  pair = hub.read_pair(hub.Origin(config.model.pair))
  saved = zip(SIDES, hub.sides_of(pair.config), strict=True)
  sizes = {side: hub_config.vocab_size for side, hub_config in saved}
  read_as = _with_vocabularies(module.config, sizes)
  params, report = hub.pair_params(
    module.clone(config=read_as),
    pair,
    jax.random.key(config.seed),
    position_extension=config.model.position_extension,
    remedies=REMEDIES,
  )
  return params, report, read_as


def _of_sides(config: Config, module: FlaxEncoderDecoderModule) -> Read | None:
  names = {
    side: config.model[side]
    for side in SIDES
    if config.model[f"{side}_init"] == "pretrained"
  }
  if not names:
    return None
  sizes = {s: hub.load_side_config(n).vocab_size for s, n in names.items()}
  if module.config.share != Share.NONE and len(sizes) == 1:
    # The drawn side's table is the other's.
    (size,) = sizes.values()
    sizes = dict.fromkeys(SIDES, size)
  read_as = _with_vocabularies(module.config, sizes)
  params, report = hub.initial_params(
    module.clone(config=read_as),
    jax.random.key(config.seed),
    encoder=names.get("encoder"),
    decoder=names.get("decoder"),
    layers={side: config.model[f"{side}_layers"] for side in SIDES},
    position_extension=config.model.position_extension,
    remedies=REMEDIES,
  )
  return params, report, read_as


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


def _tell(report: hub.LoadingReport) -> None:
  """Logs what was read and drawn, and warns of a head that was drawn."""
  logging.info("%s", report.summary())
  if warning := report.warning():
    logging.warning("%s", warning)
