"""Blenderbot (Roller et al. 2021) as a decoder: pre-norm, no embedding norm."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import bart
from encdec.config import NormPosition, Role, StackConfig

PYTORCH_CLASSES = ("BlenderbotModel", "BlenderbotForCausalLM")
TOKENIZER = "roberta"
BASE_PREFIX = bart.BASE_PREFIX
IGNORED = bart.IGNORED
TIED_NAMES = bart.TIED_NAMES
IN_FLAX_457 = False
weights = bart.weights


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The decoder that a Hub config describes; raises as BART's."""
  return dataclasses.replace(
    bart.decoder_config("blenderbot", hub, role),
    position_offset=0,
    norm_position=NormPosition.PRE,
    embedding_norm=False,
    final_norm=True,
  )


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    **bart.preset(layers, width, heads, vocab_size),
    "attention_dropout": 0.0,
    "max_position_embeddings": 128,
    "scale_embedding": True,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
    "encoder_no_repeat_ngram_size": 0,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "small": preset(4, 256, 4, 8000),
  "base": preset(12, 1280, 32, 8008),
  "large": preset(24, 2560, 32, 8008),
}
