"""The Hub configs of a run's sides: read, and fitted to the configuration."""

from collections.abc import Mapping
from typing import Any

from absl import logging

from data.tokenizers.tokenizer import Tokenizer
from encdec import hub
from encdec.config import Role
from train import validate
from train.config import Config
from train.errors import Refusal
from train.setting_names import naming
from train.setup import languages
from train.setup.tokenizers import SIDES


def read(config: Config, pair: hub.SavedPair | None) -> dict[str, Any]:
  """The Hub config of each side, as the run wants it; a pair's are changed.

  Raises:
    ValueError, OSError: a model that cannot be had, or is not of its side.
  """
  if pair:
    sides = dict(zip(SIDES, hub.sides_of(pair.config), strict=True))
  else:
    sides = {side: _read_side(config, side) for side in SIDES}
  for side, hub_config in sides.items():
    if count := config.model[f"{side}_positions"]:
      _check_positions(config, side, count, hub_config)
      hub.set_max_positions(hub_config, Role(side), count)
    if config.model.dropout != -1.0:
      hub.set_dropout(hub_config, config.model.dropout)
    # A pair is read whole: nothing is drawn.
    if config.model.init_std != -1.0 and not pair:
      hub.set_init_std(hub_config, config.model.init_std)
  return sides


def _check_positions(
  config: Config, side: str, count: int, hub_config: Any
) -> None:
  """Raises Refusal where a checkpoint's table would become shorter."""
  positions = hub.stack_config(hub_config, Role(side)).max_positions
  pretrained = config.model.pair or config.model[f"{side}_init"] == "pretrained"
  if pretrained and count < positions:
    raise Refusal(
      f"model.{side}_positions = {count}: the checkpoint has {positions}, and "
      "shorter rows need no shorter table; set it to 0"
    )


def read_pair(name: str) -> hub.SavedPair:
  """The saved pair that `model.pair` names.

  Raises:
    ValueError, OSError: there is no such pair.
  """
  what = "a preset" if validate.is_preset(name) else "no saved pair"
  with naming("model.pair", name):
    if validate.is_preset(name) or not hub.is_pair(name):
      raise Refusal(
        f"model.pair = {name!r} is {what}: set model.encoder and model.decoder "
        "to compose a pair, or this to the folder or Hub id of one"
      )
    return hub.read_pair(hub.Origin(name))


def _read_side(config: Config, side: str) -> Any:
  name = config.model[side]
  with naming(f"model.{side}", name):
    try:
      hub_config = hub.load_side_config(name)
    except ValueError as error:
      if validate.is_preset(name) or not hub.is_pair(name):
        raise
      raise Refusal(
        f"model.{side} = {name!r} is a saved pair, no {side}: set model.pair "
        "to it, which stands in place of both sides"
      ) from error
  if layers := config.model[f"{side}_layers"]:
    key = f"model.{side}_layers"
    hub.choose_layers(key, layers, hub_config, Role(side))
  return hub_config


def tell_replaced(config: Config) -> None:
  """Logs what a saved pair stands in place of."""
  flat = validate.flatten(config)
  unset = {"model.init_std": -1.0}
  given = [
    f"{key} = {flat[key]!r}"
    for key in (*validate.OF_SIDES, *unset)
    if flat[key] and flat[key] not in ("pretrained", unset.get(key))
  ]
  logging.info(
    "model.pair = %r stands in place of %s, which are not read",
    config.model.pair,
    ", ".join(given),
  )


def grow_vocabularies(
  sides: Mapping[str, Any],
  own: Mapping[str, Tokenizer],
  share: str,
) -> None:
  """Gives a side a row for each token of its tokenizer.

  Args:
    own: the tokenizers, by side.
    share: what the sides share.
  """
  sizes = {side: tokenizer.vocab_size for side, tokenizer in own.items()}
  if share != "none":
    sizes = dict.fromkeys(sizes, max(sizes.values()))
  for side, hub_config in sides.items():
    if sizes[side] > hub_config.vocab_size:
      logging.info(
        "the %s's vocabulary grows from %d tokens to %d, the tokenizer's",
        *(side, hub_config.vocab_size, sizes[side]),
      )
      hub.set_vocab_size(hub_config, sizes[side])


def fit_preset(hub_config: Any, tokenizer: Tokenizer) -> None:
  """A preset takes its vocabulary and ids from its tokenizer."""
  values = {
    "vocab_size": tokenizer.vocab_size,
    # Marian's second name of it.
    "decoder_vocab_size": tokenizer.vocab_size,
    "bos_token_id": tokenizer.bos_id,
    "eos_token_id": tokenizer.eos_id,
    "pad_token_id": tokenizer.pad_id,
  }
  known = hub_config.to_dict()
  start = languages.preset_start(known, tokenizer)
  if start is not None:
    values["decoder_start_token_id"] = start
  hub_config.update({k: v for k, v in values.items() if k in known})
