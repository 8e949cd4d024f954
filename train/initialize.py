"""What is trained: the model, its tokenizers, its special tokens, its weights.

They come from a configuration, or, once a run has begun, from its folder: a
run never asks the Hub twice.
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import logging
from transformers import EncoderDecoderConfig

from data import sources, tokenizers
from data.examples import Tokens
from data.languages import LanguageError
from data.remembered import open_remembered
from encdec import hub
from encdec.archs import ARCHS
from encdec.config import Role
from encdec.layers.mlp import activation
from encdec.model import FlaxEncoderDecoderModule
from encdec.sharding import Rules
from encdec.special_tokens import (
  SpecialTokens,
  TokenSource,
  resolve_special_tokens,
)
from train import (
  generation_settings,
  languages,
  processes,
  validate,
  workdir,
)
from train.config import Config
from train.generation_settings import GenerationSettings
from train.naming import naming

SIDES = {"encoder": "source", "decoder": "target"}
# Kinds of trained tokenizers, as architectures name them.
TRAINERS: dict[str, Callable[..., tokenizers.Tokenizer]] = {
  "wordpiece": tokenizers.train_wordpiece,
  "gpt2": tokenizers.train_bpe,
  "roberta": functools.partial(tokenizers.train_bpe, family="roberta"),
}
SETTINGS = {
  "start": "model.start_token to one of the target tokenizer's tokens",
  "end": "model.end_token to one of the target tokenizer's tokens",
  "pad": "model.pad_token to one of the target tokenizer's tokens",
}


@dataclasses.dataclass(frozen=True)
class Task:
  """Model, tokenizers and special tokens of a run.

  Attributes:
    hub_config: what an export writes as config.json.
    generation: the generation_config.json that came with the decoder, if any;
      of a run that starts from a saved pair, the options of that pair.
  """

  hub_config: EncoderDecoderConfig
  generation: Mapping[str, Any] | None
  source_tokenizer: tokenizers.Tokenizer
  target_tokenizer: tokenizers.Tokenizer
  tokens: SpecialTokens
  module: FlaxEncoderDecoderModule
  rules: Rules

  @property
  def batch_tokens(self) -> Tokens:
    """The ids that `data` puts into batches."""
    start, pad = self.tokens.start, self.tokens.pad
    assert start is not None and pad is not None, "both were needed"
    # A source without a pad token of its own is padded with any id: masks
    # come from lengths.
    source_pad = self.source_tokenizer.pad_id or 0
    # Of several the one that the tokenizer puts there itself.
    own = [i for i in self.tokens.end if i in self.target_tokenizer.suffix]
    return Tokens(start, [*own, *self.tokens.end][0], source_pad, pad)

  def generation_settings(self, config: Config) -> GenerationSettings:
    """How `config` generates with this model.

    Raises:
      ValueError: see `train.generation_settings.resolve`.
    """
    return _generation_settings(
      config, self.generation, self.target_tokenizer, self.tokens
    )


def build(config: Config, folder: Path, *, weights: bool = False) -> Task:
  """The task of a configuration, read from `folder` where it began before.

  All processes call it; the first one writes. The folder has tokenizers/
  afterwards; model.json comes with `record`.

  Args:
    weights: they will be read; an encoder's say whether it has a pooler.

  Raises:
    ValueError, OSError: what the config names cannot be had or does not fit.
  """
  if (folder / "config.json").exists():
    return restore(config, folder)
  pair = None
  if config.model.pair:
    with naming("model.pair", config.model.pair):
      pair = hub.read_pair(hub.Origin(config.model.pair))
    _say_what_a_pair_replaces(config)
  sides = _side_configs(config, pair)
  share = config.model.share or (str(pair.share) if pair else "none")
  if weights and not pair and config.model.encoder_init == "pretrained":
    with naming("model.encoder", config.model.encoder):
      hub.fit_pooler_to(sides["encoder"], config.model.encoder)

  def make_tokenizers() -> None:
    made = {side: _make_tokenizer(config, side, sides, share) for side in SIDES}
    _check_one(share, made)
    _save_tokenizers(made, folder)

  processes.on_chief("making the tokenizers", make_tokenizers)
  read = _read_tokenizers(folder)
  for side in SIDES:
    if not pair and validate.is_preset(config.model[side]):
      _fit_preset(sides[side], read[side])
  if config.model.grow_vocabulary:
    _grow_vocabularies(sides, read, share)
  if pair:
    # Its own values, with the sides as they are now.
    hub_config, generation = pair.config, hub.options_of(pair.generation)
    said = None if pair.derived else generation
  else:
    hub_config = hub.compose_config(sides["encoder"], sides["decoder"])
    said = generation = None
    if not validate.is_preset(config.model.decoder):
      said = generation = hub.generation_config_of(config.model.decoder)
  tokens = _resolve_tokens(config, hub_config, said, read["decoder"])
  return _task(config, hub_config, share, generation, read, tokens)


def restore(config: Config, folder: Path) -> Task:
  """The task as `record` wrote it; nothing but the folder is read."""
  path = folder / "model.json"
  values = workdir.read_json(path, "config", "generation", "tokens")
  read = _read_tokenizers(folder)
  return _task(
    config,
    hub.composite_config(values["config"], str(path)),
    # Before there were saved pairs to start from it was the config's.
    values.get("share", config.model.share),
    values["generation"],
    read,
    SpecialTokens.from_dict(values["tokens"]),
  )


def rules(config: Config) -> Rules:
  """The sharding table of a configuration."""
  return Rules.from_mapping(config.sharding.to_dict())


def record(task: Task, folder: Path) -> None:
  """Writes model.json, once, for whoever reads the run later."""
  if (folder / "model.json").exists() and (folder / "config.json").exists():
    return
  values = {
    "config": task.hub_config.to_dict(),
    "share": str(task.module.config.share),
    "generation": task.generation,
    "tokens": task.tokens.as_dict(),
  }
  workdir.write_json(folder / "model.json", values)


def _side_configs(config: Config, pair: hub.SavedPair | None) -> dict[str, Any]:
  """The Hub config of each side, as the run wants it; a pair's are changed."""
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
  held = hub.stack_config(hub_config, Role(side)).max_positions
  pretrained = config.model.pair or config.model[f"{side}_init"] == "pretrained"
  if pretrained and count < held:
    raise validate.Refusal(
      f"model.{side}_positions = {count}: the checkpoint has {held}, and "
      "shorter rows need no shorter table; set it to 0"
    )


def _read_side(config: Config, side: str) -> Any:
  name = config.model[side]
  with naming(f"model.{side}", name):
    try:
      hub_config = hub.load_side_config(name)
    except ValueError as error:
      if validate.is_preset(name) or not hub.is_pair(name):
        raise
      raise validate.Refusal(
        f"model.{side} = {name!r} is a saved pair, no {side}: set model.pair "
        "to it, which stands in place of both sides"
      ) from error
  if layers := config.model[f"{side}_layers"]:
    key = f"model.{side}_layers"
    hub.choose_layers(key, layers, hub_config, Role(side))
  return hub_config


def _say_what_a_pair_replaces(config: Config) -> None:
  flat = validate.flatten(config)
  unset = {"model.init_std": -1.0}
  given = [
    f"{key} = {flat[key]!r}"
    for key in (*validate.OF_SIDES, *unset)
    if flat[key] and flat[key] != unset.get(key)
  ]
  logging.info(
    "model.pair = %r stands in place of %s, which are not read",
    config.model.pair,
    ", ".join(given),
  )


def _grow_vocabularies(
  sides: Mapping[str, Any],
  read: Mapping[str, tokenizers.Tokenizer],
  share: str,
) -> None:
  """Gives a side a row for each token of its tokenizer."""
  sizes = {side: tokenizer.vocab_size for side, tokenizer in read.items()}
  if share != "none":
    sizes = dict.fromkeys(sizes, max(sizes.values()))
  for side, hub_config in sides.items():
    if sizes[side] > hub_config.vocab_size:
      logging.info(
        "the %s's vocabulary grows from %d tokens to %d, the tokenizer's",
        *(side, hub_config.vocab_size, sizes[side]),
      )
      hub.set_vocab_size(hub_config, sizes[side])


def _make_tokenizer(
  config: Config, side: str, sides: Mapping[str, Any], share: str
) -> tokenizers.Tokenizer:
  """Named by the config, the model's own, or trained on the training split.

  Sides that share embeddings have one tokenizer, of both sides' texts.
  """
  kind = SIDES[side]
  if named := config.data[f"{kind}_tokenizer"]:
    with naming(f"data.{kind}_tokenizer", named):
      return languages.load_tokenizer(config, kind, named)
  if config.model.pair:
    with naming("model.pair", config.model.pair):
      return _pair_tokenizer(config, side, sides)
  if not validate.is_preset(config.model[side]):
    with naming(f"model.{side}", config.model[side]):
      return languages.load_tokenizer(config, kind, config.model[side])
  languages.check_trained(config, kind)
  both = (config.data.source_field, config.data.target_field)
  fields = [config.data[f"{kind}_field"]]
  if share != "none":
    fields = both
  parts = [
    open_remembered(
      uri, fields=both, on_bad_record=config.data.on_bad_record, folder=None
    )
    for uri in sources.parse_mixture(config.data.train)
  ]
  texts = (
    part[i][field]
    for part in parts
    for i in range(len(part))
    for field in fields
  )
  name = ARCHS[sides[side].model_type].TOKENIZER
  # Byte-level BPE always tells capitals apart.
  options = {"wordpiece": {"keep_case": config.data.keep_case}}.get(name, {})
  return TRAINERS[name](texts, config.data[f"{kind}_vocab_size"], **options)


def _pair_tokenizer(
  config: Config, side: str, sides: Mapping[str, Any]
) -> tokenizers.Tokenizer:
  """A saved pair's: the source's at its root, the target's beside it."""
  name, kind = config.model.pair, SIDES[side]
  subfolder = ""
  if side == "decoder":
    subfolder = hub.target_tokenizer_of(hub.Origin(name))
    sizes = {key: hub_config.vocab_size for key, hub_config in sides.items()}
    if not subfolder and sizes["encoder"] != sizes["decoder"]:
      raise validate.Refusal(
        f"model.pair = {name!r} holds one tokenizer, and its sides have "
        f"vocabularies of {sizes['encoder']} and {sizes['decoder']} tokens: "
        "set data.target_tokenizer to the decoder's"
      )
  try:
    return languages.load_tokenizer(config, kind, name, subfolder)
  except LanguageError:
    raise
  except ValueError as error:
    raise validate.Refusal(
      f"model.pair = {name!r} holds no {kind} tokenizer that can be read: set "
      f"data.{kind}_tokenizer ({error})"
    ) from error


def _check_one(share: str, made: Mapping[str, tokenizers.Tokenizer]) -> None:
  """Raises Refusal where the sides share embeddings of different ids."""
  one, other = made.values()
  if share != "none" and one.vocabulary != other.vocabulary:
    raise validate.Refusal(
      f"the sides share {share!r} (model.share), but their tokenizers differ: "
      "name one in data.source_tokenizer and data.target_tokenizer, or set "
      "model.share to 'none'"
    )


def _save_tokenizers(
  made: Mapping[str, tokenizers.Tokenizer], folder: Path
) -> None:
  # Without config.json no run has begun: what lies here is a failed start's.
  final, partial = folder / "tokenizers", folder / "tokenizers.partial"
  for old in (final, partial):
    if old.exists():
      shutil.rmtree(old)
  for side, tokenizer in made.items():
    (partial / SIDES[side]).mkdir(parents=True)
    tokenizer.save(str(partial / SIDES[side]))
  partial.rename(final)


def _read_tokenizers(folder: Path) -> dict[str, tokenizers.Tokenizer]:
  """By side, as `_save_tokenizers` wrote them: they keep their languages."""
  return {
    side: tokenizers.load(
      str(folder / "tokenizers" / kind), target=kind == "target"
    )
    for side, kind in SIDES.items()
  }


def _fit_preset(hub_config: Any, tokenizer: tokenizers.Tokenizer) -> None:
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


def _resolve_tokens(
  config: Config,
  hub_config: EncoderDecoderConfig,
  generation: Mapping[str, Any] | None,
  tokenizer: tokenizers.Tokenizer,
) -> SpecialTokens:
  """The table of decision by precedence: the run's words first."""
  chosen = {}
  for role in SETTINGS:
    name = config.model[f"{role}_token"]
    if name and tokenizer.token_id(name) is None:
      raise validate.Refusal(
        f"model.{role}_token = {name!r} is no token of the target tokenizer: "
        "set it to one that is"
      )
    chosen[role] = tokenizer.token_id(name) if name else None
  last = [tokenizer.sep_id, tokenizer.eos_id]
  own = TokenSource(
    "the target tokenizer",
    start=languages.start_id(tokenizer),
    end=next((i for i in last if i is not None), None),
    pad=tokenizer.pad_id,
  )
  return resolve_special_tokens(
    [
      TokenSource("model.*_token of the configuration", **chosen),
      *languages.start_sources(config, hub_config, tokenizer),
      *hub.token_sources(hub_config, generation),
      own,
    ],
    bos=hub.decoder_bos(hub_config),
    setting=SETTINGS,
  )


def _generation_settings(
  config: Config,
  generation: Mapping[str, Any] | None,
  tokenizer: tokenizers.Tokenizer,
  tokens: SpecialTokens,
) -> GenerationSettings:
  # A decoder's own options are of another task.
  saved = generation if config.model.pair else None
  further = languages.options(tokenizer, tokens)
  return generation_settings.resolve(config, saved, further)


def _task(
  config: Config,
  hub_config: EncoderDecoderConfig,
  share: str,
  generation: Mapping[str, Any] | None,
  read: Mapping[str, tokenizers.Tokenizer],
  tokens: SpecialTokens,
) -> Task:
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
  validate.check_model(
    config,
    model_config,
    {s: t.vocab_size for s, t in read.items()},
    tokens,
    _generation_settings(config, generation, read["decoder"], tokens),
  )
  module = FlaxEncoderDecoderModule(
    model_config,
    dtype=jnp.dtype(config.model.dtype),
    param_dtype=jnp.dtype(config.model.param_dtype),
    remat=config.model.remat,
    scan_unroll=config.model.scan_unroll,
    attention_dropout=config.model.attention_dropout,
    attention=config.model.attention,
    rules=rules(config),
  )
  return Task(
    hub_config,
    generation,
    read["encoder"],
    read["decoder"],
    tokens,
    module,
    rules(config),
  )
