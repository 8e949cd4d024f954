"""Marian (Junczys-Dowmunt et al. 2018) as a decoder: BART, sinusoidal.

PyTorch's causal Marian has no output bias: `final_logits_bias` of a
translation model is left out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import bart, pegasus
from encdec.config import PositionKind, Role, StackConfig

PYTORCH_CLASSES = ("MarianModel", "MarianForCausalLM")
TOKENIZER = "roberta"
BASE_PREFIX = bart.BASE_PREFIX
IGNORED = bart.IGNORED
TIED_NAMES = bart.TIED_NAMES
IN_FLAX_457 = False
weights = bart.weights
computed = pegasus.computed


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The decoder that a Hub config describes; raises as BART's."""
  rows = hub.get("decoder_vocab_size")
  if rows not in (None, hub["vocab_size"]):
    raise ValueError(
      f"decoder_vocab_size={rows} is not vocab_size={hub['vocab_size']}: the "
      "head has vocab_size rows; make them equal"
    )
  config = bart.decoder_config("marian", hub, role)
  return dataclasses.replace(
    config,
    position_kind=PositionKind.SINUSOIDAL,
    position_offset=0,
    given_embedding_scale=config.embedding_scale,
    embedding_norm=False,
  )


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    **bart.preset(layers, width, heads, vocab_size),
    "activation_function": "swish",
    "attention_dropout": 0.0,
    "max_position_embeddings": 512,
    "scale_embedding": True,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "small": preset(4, 256, 4, 8000),
  "base": preset(6, 512, 8, 58101),
  "large": preset(6, 1024, 16, 58101),
}
