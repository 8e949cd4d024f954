"""RoBERTa (Liu et al. 2019): BERT, positions offset by the padding id.

Positions start after the padding id's row; the LM head has other names.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import bert
from encdec.archs.weight_rule import Weight, linear, norm
from encdec.config import HeadKind, Role, StackConfig

PYTORCH_CLASSES = ("RobertaModel", "RobertaForCausalLM")
TOKENIZER = "roberta"
BASE_PREFIX = "roberta"
IGNORED = (r"(.*\.)?embeddings\.(position_ids|token_type_ids)",)
TIED_NAMES = ("lm_head.decoder.weight", "lm_head.decoder.bias")
IN_FLAX_457 = True


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The side that a Hub config describes."""
  pad = hub["pad_token_id"]
  if pad is None:
    raise ValueError(
      "pad_token_id=None: RoBERTa counts its positions from it; set it to the "
      "padding id of the checkpoint (1)"
    )
  config = bert.stack_config(hub, role)
  return dataclasses.replace(
    config,
    name="roberta",
    max_positions=config.max_positions - pad - 1,
    position_offset=pad + 1,
    positions_from_ids=True,
    head_activation="gelu",
  )


def weights(config: StackConfig) -> tuple[Weight, ...]:
  """Every tensor of the side's Hub file."""
  table = bert.embedding_weights(config) + bert.layer_weights(config)
  return (*table, *top_weights(config))


def top_weights(config: StackConfig) -> list[Weight]:
  """Pooler and LM head."""
  table = []
  if config.pooler:
    table += linear("pooler.dense", "pooler")
  if config.head == HeadKind.TRANSFORM:
    table += linear("lm_head.dense", "head/transform", base=False)
    table += norm("lm_head.layer_norm", "head/norm", base=False)
    table += bert.output_weights(config, "lm_head")
  return table


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    **bert.preset(layers, width, heads, vocab_size),
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "small": preset(4, 256, 4, 8000),
  "base": preset(12, 768, 12, 50265),
  "large": preset(24, 1024, 16, 50265),
}
