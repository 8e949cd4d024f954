"""What is trained: the model, its tokenizers, its special tokens, its weights.

They come from a configuration, or, once a run has begun, from its folder: a
run never asks the Hub twice.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from transformers import EncoderDecoderConfig

from data import sources, tokenizers
from data.examples import Tokens
from data.remembered import open_remembered
from encdec import hub
from encdec.archs import ARCHS
from encdec.config import Role
from encdec.model import FlaxEncoderDecoderModule
from encdec.sharding import Rules
from encdec.special_tokens import (
  SpecialTokens,
  TokenSource,
  resolve_special_tokens,
)
from encdec.types import Params
from train import processes, validate, workdir
from train.config import Config

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
    generation: the generation_config.json that came with the decoder, if any.
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
    return Tokens(start, self.tokens.end[0], source_pad, pad)


def build(config: Config, folder: Path) -> Task:
  """The task of a configuration, read from `folder` where it began before.

  All processes call it; the first one writes. The folder has tokenizers/
  afterwards; model.json comes with `record`.

  Raises:
    ValueError, OSError: what the config names cannot be had or does not fit.
  """
  if (folder / "config.json").exists():
    return restore(config, folder)
  sides = {side: _side_config(config, side) for side in SIDES}
  names = {side: folder / "tokenizers" / name for side, name in SIDES.items()}

  def make_tokenizers() -> None:
    made = {side: _make_tokenizer(config, side, sides[side]) for side in SIDES}
    _check_one(config, made)
    _save_tokenizers(made, folder)

  processes.on_chief("making the tokenizers", make_tokenizers)
  read = {side: tokenizers.load(str(name)) for side, name in names.items()}
  for side in SIDES:
    if validate.is_preset(config.model[side]):
      _fit_preset(sides[side], read[side])
  hub_config = hub.compose_config(sides["encoder"], sides["decoder"])
  generation = None
  if not validate.is_preset(config.model.decoder):
    generation = hub.generation_config_of(config.model.decoder)
  tokens = _resolve_tokens(config, hub_config, generation, read["decoder"])
  return _task(config, hub_config, generation, read, tokens)


def restore(config: Config, folder: Path) -> Task:
  """The task as `record` wrote it; nothing but the folder is read."""
  values = json.loads((folder / "model.json").read_text(encoding="utf-8"))
  read = {
    side: tokenizers.load(str(folder / "tokenizers" / name))
    for side, name in SIDES.items()
  }
  return _task(
    config,
    EncoderDecoderConfig.from_dict(values["config"]),
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
    "generation": task.generation,
    "tokens": task.tokens.as_dict(),
  }
  workdir.write_json(folder / "model.json", values)


def first_params(
  config: Config, module: FlaxEncoderDecoderModule
) -> Params | None:
  """A host's parameters to start from; None: all random, drawn on devices.

  Raises:
    hub.LoadingError: a weight file lacks tensors or has others.
  """
  names = {
    side: config.model[side]
    if config.model[f"{side}_init"] == "pretrained"
    else None
    for side in SIDES
  }
  if not any(names.values()):
    return None
  key = jax.random.key(config.seed)
  params, report = hub.initial_params(
    module,
    key,
    encoder=names["encoder"],
    decoder=names["decoder"],
    layers={side: config.model[f"{side}_layers"] for side in SIDES},
    position_extension=config.model.position_extension,
  )
  logging.info("%s", report.summary())
  return params


def _side_config(config: Config, side: str) -> Any:
  hub_config = hub.load_side_config(config.model[side])
  if layers := config.model[f"{side}_layers"]:
    name = f"model.{side}_layers"
    hub.choose_layers(name, layers, hub_config, Role(side))
  if count := config.model[f"{side}_positions"]:
    hub.set_max_positions(hub_config, Role(side), count)
  if config.model.dropout != -1.0:
    hub.set_dropout(hub_config, config.model.dropout)
  if config.model.init_std != -1.0:
    hub.set_init_std(hub_config, config.model.init_std)
  return hub_config


def _make_tokenizer(
  config: Config, side: str, hub_config: Any
) -> tokenizers.Tokenizer:
  """Named by the config, the model's own, or trained on the training split.

  Sides that share embeddings have one tokenizer, of both sides' texts.
  """
  kind = SIDES[side]
  named = config.data[f"{kind}_tokenizer"]
  if named or not validate.is_preset(config.model[side]):
    return tokenizers.load(named or config.model[side])
  both = (config.data.source_field, config.data.target_field)
  fields = [config.data[f"{kind}_field"]]
  if config.model.share != "none":
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
  train = TRAINERS[ARCHS[hub_config.model_type].TOKENIZER]
  return train(texts, config.data[f"{kind}_vocab_size"])


def _check_one(
  config: Config, made: Mapping[str, tokenizers.Tokenizer]
) -> None:
  """Raises Refusal where the sides share embeddings of different ids."""
  one, other = made.values()
  if config.model.share != "none" and one.fingerprint != other.fingerprint:
    raise validate.Refusal(
      f"model.share = {config.model.share!r}, but the tokenizers of "
      f"{config.model.encoder!r} and {config.model.decoder!r} differ: name one "
      "in data.source_tokenizer and data.target_tokenizer, or set model.share "
      "to 'none'"
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
  first = [tokenizer.cls_id, tokenizer.bos_id]
  start = next((token for token in first if token is not None), None)
  if start is not None:
    values["decoder_start_token_id"] = start
  known = hub_config.to_dict()
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
  first = [tokenizer.cls_id, tokenizer.bos_id]
  last = [tokenizer.sep_id, tokenizer.eos_id]
  own = TokenSource(
    "the target tokenizer",
    start=next((i for i in first if i is not None), None),
    end=next((i for i in last if i is not None), None),
    pad=tokenizer.pad_id,
  )
  return resolve_special_tokens(
    [
      TokenSource("model.*_token of the configuration", **chosen),
      *hub.token_sources(hub_config, generation),
      own,
    ],
    bos=hub.decoder_bos(hub_config),
    setting=SETTINGS,
  )


def _task(
  config: Config,
  hub_config: EncoderDecoderConfig,
  generation: Mapping[str, Any] | None,
  read: Mapping[str, tokenizers.Tokenizer],
  tokens: SpecialTokens,
) -> Task:
  model_config = hub.encdec_config(
    hub_config,
    share=config.model.share,
    vocab_multiple=config.model.vocab_multiple,
  )
  validate.check_model(
    config, model_config, {s: t.vocab_size for s, t in read.items()}, tokens
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
