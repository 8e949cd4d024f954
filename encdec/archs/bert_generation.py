"""BertGeneration (Rothe et al. 2020): BERT without token types and pooler."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import bert
from encdec.archs.weight_rule import Weight
from encdec.config import HeadKind, Role, StackConfig

PYTORCH_CLASSES = ("BertGenerationEncoder", "BertGenerationDecoder")
TOKENIZER = "roberta"
BASE_PREFIX = "bert"
IGNORED = (r"(.*\.)?embeddings\.position_ids",)
TIED_NAMES = ("lm_head.decoder.weight", "lm_head.decoder.bias")
IN_FLAX_457 = False


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The side that a Hub config describes."""
  config = bert.stack_config({**hub, "type_vocab_size": 0}, role)
  decoder = config.role == Role.DECODER
  return dataclasses.replace(
    config,
    name="bert_generation",
    pooler=False,
    head=HeadKind.LINEAR if decoder else HeadKind.NONE,
  )


def weights(config: StackConfig) -> tuple[Weight, ...]:
  """Every tensor of the side's Hub file."""
  table = bert.embedding_weights(config) + bert.layer_weights(config)
  if config.head == HeadKind.LINEAR:
    table += bert.output_weights(config, "lm_head")
  return tuple(table)


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    **bert.preset(layers, width, heads, vocab_size),
    "bos_token_id": 2,
    "eos_token_id": 1,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "small": preset(4, 256, 4, 8000),
  "large": preset(24, 1024, 16, 50358),
}
