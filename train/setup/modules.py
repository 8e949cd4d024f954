"""The Flax module of a configuration: of Hub configs, or of presets alone."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from transformers import EncoderDecoderConfig

from encdec import hub
from encdec.config import Role
from encdec.layers.activations import activation
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import RowLayout
from train import validate
from train.config import Config
from train.errors import Refusal
from train.mesh import sharding_rules
from train.setting_names import naming
from train.setup import side_configs
from train.setup.lora import lora_config
from train.setup.tokenizers import SIDES


def build_module(
  config: Config, hub_config: EncoderDecoderConfig, share: str
) -> FlaxEncoderDecoderModule:
  """The module of a pair's Hub config.

  Args:
    share: what the sides share.

  Raises:
    ValueError: an architecture cannot take its side, or a value is wrong.
  """
  for side in SIDES:
    key = "model.pair" if config.model.pair else f"model.{side}"
    with naming(key, config[key]):
      stack = hub.stack_config(getattr(hub_config, side), Role(side))
      activation(stack.activation)
  with naming(share="model.share"):
    model_config = hub.encdec_config(
      hub_config,
      share=share or "none",
      vocab_multiple=config.model.vocab_multiple,
    )
  return FlaxEncoderDecoderModule(
    dataclasses.replace(model_config, lora=lora_config(config)),
    dtype=jnp.dtype(config.model.dtype),
    param_dtype=jnp.dtype(config.model.param_dtype),
    remat=config.model.remat,
    scan_unroll=config.model.scan_unroll,
    attention_dropout=config.model.attention_dropout,
    attention=config.model.attention,
    row_layout=_row_layout(config),
    rules=sharding_rules(config),
  )


def _row_layout(config: Config) -> RowLayout:
  """What data promises of a row; those of evaluation hold one pair always."""
  packed = config.data.packing == "pack"
  return RowLayout.PACKED if packed else RowLayout.SINGLE


def preset_module(config: Config) -> FlaxEncoderDecoderModule:
  """The module of presets, with neither tokenizers nor weights nor the Hub.

  Its vocabularies are `data.source_vocab_size` and `data.target_vocab_size`:
  those of a run that trains its tokenizers and finds as many tokens.

  Raises:
    Refusal: a side is no preset.
  """
  for key in ("pair", *SIDES):
    name = config.model[key]
    if name and not validate.is_preset(name):
      raise Refusal(
        f"model.{key} = {name!r} is no preset: without its files its module is "
        "not known; set model.encoder and model.decoder to presets such as "
        "bert:base and gpt2:base"
      )
  sides: dict[str, Any] = side_configs.read(config, None)
  for side, kind in SIDES.items():
    hub.set_vocab_size(sides[side], config.data[f"{kind}_vocab_size"])
  pair = hub.compose_config(sides["encoder"], sides["decoder"])
  return build_module(config, pair, config.model.share)
