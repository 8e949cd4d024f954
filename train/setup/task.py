"""What is trained: the model, its tokenizers, its special tokens, its weights.

They come from a configuration, or, once a run has begun, from its folder: the
Hub is not asked again, but for the base of adapters, which checkpoints leave
out (see `train.setup.base_weights`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32
from transformers import EncoderDecoderConfig

from data.examples import Tokens
from data.tokenizers.tokenizer import Tokenizer
from encdec import hub
from encdec.config import StackConfig
from encdec.model import FlaxEncoderDecoderModule
from encdec.sharding import Rules
from encdec.special_tokens import (
  SpecialTokens,
  TokenSource,
  resolve_special_tokens,
)
from train import generation_settings, validate
from train.config import Config
from train.errors import Refusal
from train.generation_settings import GenerationSettings
from train.mesh import platform_of, sharding_rules
from train.processes import agreement
from train.setting_names import naming
from train.setup import languages, model_check, side_configs, tokenizers
from train.setup.initial_params import check_copied_table
from train.setup.modules import build_module
from train.setup.tokenizers import SIDES
from train.workdir import json_files

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
    source_types: as `data.source_types` has it.
  """

  hub_config: EncoderDecoderConfig
  generation: Mapping[str, Any] | None
  source_tokenizer: Tokenizer
  target_tokenizer: Tokenizer
  tokens: SpecialTokens
  module: FlaxEncoderDecoderModule
  rules: Rules
  source_types: str = ""

  def on(self, mesh: Mesh) -> "Task":
    """The task whose programs are compiled for the devices of `mesh`."""
    module = self.module.clone(platform=platform_of(mesh))
    return dataclasses.replace(self, module=module)

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
    end = [*own, *self.tokens.end][0]
    sentence_end = (
      self.source_tokenizer.suffix[-1] if self.source_types else None
    )
    return Tokens(start, end, source_pad, pad, sentence_end)

  @property
  def width(self) -> int:
    """The decoder's, by which a "noam" schedule scales."""
    return self.module.config.decoder.width

  def text_of(self, ids: Int32[np.ndarray, " T"]) -> str:
    """The text of target ids: without start, end and other special tokens."""
    plain = [int(i) for i in ids if int(i) not in self.tokens.end]
    return self.target_tokenizer.decode(plain)

  def generation_settings(self, config: Config) -> GenerationSettings:
    """How `config` generates with this model.

    Raises:
      ValueError: see `train.generation_settings.resolve`.
    """
    return _generation_settings(
      config, self.generation, self.target_tokenizer, self.tokens
    )


def build_task(config: Config, folder: Path, *, weights: bool = False) -> Task:
  """The task of a configuration, read from `folder` where it began before.

  All processes call it; the first one writes. The folder has tokenizers/
  afterwards; model.json comes with `record_task`.

  Args:
    weights: they will be read; an encoder's say whether it has a pooler.

  Raises:
    ValueError, OSError: what the config names cannot be had or does not fit.
  """
  if (folder / "config.json").exists():
    return restore_task(config, folder)
  pair = None
  if config.model.pair:
    with naming("model.pair", config.model.pair):
      pair = side_configs.read_pair(config.model.pair)
    side_configs.tell_replaced(config)
  sides = side_configs.read(config, pair)
  share = config.model.share or (str(pair.share) if pair else "none")
  if weights and not pair and config.model.encoder_init == "pretrained":
    with naming("model.encoder", config.model.encoder):
      hub.fit_pooler_to(sides["encoder"], config.model.encoder)

  agreement.on_chief(
    "making the tokenizers",
    lambda: tokenizers.make(config, sides, share, folder),
  )
  read = tokenizers.read(folder)
  for side in SIDES:
    if not pair and validate.is_preset(config.model[side]):
      side_configs.fit_preset(sides[side], read[side])
  if config.model.grow_vocabulary:
    side_configs.grow_vocabularies(sides, read, share)
  if pair:
    # Its own values, with the sides as they are now.
    hub_config, generation = pair.config, hub.options_of(pair.generation)
    said = None if pair.derived else generation
    if not config.data.target_language:
      languages.check_forced(read["decoder"], generation)
  else:
    hub_config = hub.compose_config(sides["encoder"], sides["decoder"])
    said = generation = None
    if not validate.is_preset(config.model.decoder):
      said = generation = hub.generation_config_of(config.model.decoder)
  tokens = _resolve_tokens(config, hub_config, said, read["decoder"])
  return _task(config, hub_config, share, generation, read, tokens)


def restore_task(config: Config, folder: Path) -> Task:
  """The task as `record_task` wrote it; nothing but the folder is read."""
  path = folder / "model.json"
  values = json_files.read_json(path, "config", "generation", "tokens")
  read = tokenizers.read(folder)
  if read["decoder"].has_modes and "target_mode" not in values:
    raise Refusal(
      f"--workdir={folder} holds a run of an earlier version, which tokenised "
      "its targets as sources: train it again in another --workdir"
    )
  return _task(
    config,
    hub.composite_config(values["config"], str(path)),
    # Before there were saved pairs to start from it was the config's.
    values.get("share", config.model.share),
    values["generation"],
    read,
    SpecialTokens.from_dict(values["tokens"]),
  )


def record_task(task: Task, folder: Path) -> None:
  """Writes model.json, once, for whoever reads the run later."""
  if (folder / "model.json").exists() and (folder / "config.json").exists():
    return
  values = {
    "config": task.hub_config.to_dict(),
    "share": str(task.module.config.share),
    "generation": task.generation,
    "tokens": task.tokens.as_dict(),
    # An earlier version read targets as sources.
    "target_mode": True,
  }
  json_files.write_json(folder / "model.json", values)


def _resolve_tokens(
  config: Config,
  hub_config: EncoderDecoderConfig,
  generation: Mapping[str, Any] | None,
  tokenizer: Tokenizer,
) -> SpecialTokens:
  """The table of decision by precedence: the run's words first."""
  chosen = {}
  for role in SETTINGS:
    name = config.model[f"{role}_token"]
    if name and tokenizer.token_id(name) is None:
      raise Refusal(
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
  tokenizer: Tokenizer,
  tokens: SpecialTokens,
) -> GenerationSettings:
  # A decoder's own options are of another task.
  saved = generation if config.model.pair else None
  chosen = bool(config.data.target_language)
  further = languages.options(tokenizer, tokens, chosen)
  return generation_settings.resolve(config, saved, further)


def _task(
  config: Config,
  hub_config: EncoderDecoderConfig,
  share: str,
  generation: Mapping[str, Any] | None,
  read: Mapping[str, Tokenizer],
  tokens: SpecialTokens,
) -> Task:
  module = build_module(config, hub_config, share)
  model_check.check(
    config,
    module.config,
    {s: t.vocab_size for s, t in read.items()},
    tokens,
    _generation_settings(config, generation, read["decoder"], tokens),
  )
  check_copied_table(config, module.config)
  _check_source_types(config, module.config.encoder, read["encoder"])
  return Task(
    hub_config,
    generation,
    read["encoder"],
    read["decoder"],
    tokens,
    module,
    sharding_rules(config),
    config.data.source_types,
  )


def _check_source_types(
  config: Config, encoder: StackConfig, tokenizer: Tokenizer
) -> None:
  """Raises Refusal where sentences of a source cannot have types."""
  if not config.data.source_types:
    return
  setting = f"data.source_types = {config.data.source_types!r}"
  if encoder.type_vocab_size < 2:
    raise Refusal(
      f"{setting}: the encoder ({encoder.name}) has {encoder.type_vocab_size} "
      "types of tokens, and sentences need two; set it to '', or model.encoder "
      "to a BERT"
    )
  if not tokenizer.suffix:
    raise Refusal(
      f"{setting}: the source tokenizer ends a text with no token, which would "
      "tell sentences apart; set it to '', or data.source_tokenizer to BERT's"
    )
