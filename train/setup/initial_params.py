"""The parameters that a run starts from: read from checkpoints, or drawn."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import traverse_util

from encdec import hub
from encdec.adapters import LoraConfig
from encdec.config import EncDecConfig, Share
from encdec.model import FlaxEncoderDecoderModule, param_shapes
from encdec.types import Params
from train.config import Config
from train.errors import Refusal
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

  Without adapters, which are always drawn.

  Raises:
    hub.LoadingError: a weight file lacks tensors or has others.
  """
  lora = module.config.lora
  base = dataclasses.replace(module.config, lora=None)
  module = module.clone(config=base)
  read = _of_pair if config.model.pair else _of_sides
  with naming(share="model.share"):
    loaded = read(config, module)
  report = loaded[1] if loaded else hub.LoadingReport()
  if lora is not None:
    _warn_of_frozen(config, module, lora, report)
  if loaded is None:
    return None
  params, report, read_as = loaded
  _tell(report)
  if read_as != module.config:
    # As resize_token_embeddings draws them by default.
    rows = hub.NewRows("mean")
    params = hub.resize_vocabulary(params, read_as, module.config, rows)
  if config.model.decoder_embeddings_init == "encoder":
    params = _with_copied_table(params)
    logging.info("the decoder's table of tokens is a copy of the encoder's")
  return params


def check_copied_table(config: Config, model: EncDecConfig) -> None:
  """Raises Refusal where the decoder's table cannot be the encoder's copy."""
  if not config.model.decoder_embeddings_init:
    return
  setting = "model.decoder_embeddings_init = 'encoder'"
  for key, fits in (
    ("pair", config.model.pair == ""),
    ("encoder_init", config.model.encoder_init == "pretrained"),
    ("share", model.share == Share.NONE),
  ):
    if not fits:
      raise Refusal(
        f"{setting} copies the table of a pretrained encoder to a decoder that "
        f"has its own, but model.{key} = {config.model[key]!r}: set "
        "model.decoder_embeddings_init to ''"
      )
  if differences := model.share_differences(Share.EMBEDDINGS):
    raise Refusal(
      f"{setting}, but the sides differ in {', '.join(differences)}: name the "
      "encoder's tokenizer in data.target_tokenizer and a decoder of its "
      "width, or set it to ''"
    )


def _with_copied_table(params: Params) -> Params:
  tokens = params["encoder"]["embeddings"]["tokens"]
  tokens = {name: np.array(leaf) for name, leaf in tokens.items()}
  decoder = params["decoder"]
  embeddings = {**decoder["embeddings"], "tokens": tokens}
  return {**params, "decoder": {**decoder, "embeddings": embeddings}}


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
  config: EncDecConfig, sizes: Mapping[str, Any]
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


def _warn_of_frozen(
  config: Config,
  module: FlaxEncoderDecoderModule,
  lora: LoraConfig,
  report: hub.LoadingReport,
) -> None:
  """Warns of what is drawn at random and stays so beside adapters."""
  drawn = [
    side
    for side in SIDES
    if not config.model.pair and config.model[f"{side}_init"] == "random"
  ]
  if report.heads and "decoder" not in drawn:
    drawn.append("decoder/head")
  shapes: dict[str, Any] = traverse_util.flatten_dict(
    param_shapes(module), sep="/"
  )
  for part in drawn:
    if any(p.startswith(f"{part}/") and lora.is_base(p) for p in shapes):
      logging.warning(
        "%s is drawn at random and stays so, since only adapters are trained: "
        "add '%s/*' to model.lora_unfrozen to train it",
        *(part, part),
      )
