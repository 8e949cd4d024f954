"""Pegasus (Zhang et al. 2020) as a decoder: pre-norm, sinusoidal positions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from encdec.archs import bart
from encdec.config import NormPosition, PositionKind, Role, StackConfig
from encdec.layers.positions import sinusoids

PYTORCH_CLASSES = ("PegasusModel", "PegasusForCausalLM")
TOKENIZER = "roberta"
BASE_PREFIX = bart.BASE_PREFIX
IGNORED = bart.IGNORED
TIED_NAMES = bart.TIED_NAMES
IN_FLAX_457 = False
weights = bart.weights


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The decoder that a Hub config describes; raises as BART's."""
  config = bart.decoder_config("pegasus", hub, role)
  return dataclasses.replace(
    config,
    position_kind=PositionKind.SINUSOIDAL,
    position_offset=0,
    norm_position=NormPosition.PRE,
    given_embedding_scale=config.embedding_scale,
    embedding_norm=False,
    final_norm=True,
  )


def computed(config: StackConfig) -> dict[str, np.ndarray]:
  """The position table, which PyTorch keeps among the frozen parameters."""
  return {"decoder.embed_positions.weight": sinusoids(config)}


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    **bart.preset(layers, width, heads, vocab_size),
    "activation_function": "relu",
    "activation_dropout": 0.1,
    "scale_embedding": True,
    "pad_token_id": 0,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "small": preset(4, 256, 4, 8000),
  "large": preset(16, 1024, 16, 96103),
  # BertSum's decoder (Liu and Lapata 2019), as far as Pegasus has it.
  "bertsum": {
    **preset(6, 768, 8, 30522),
    "decoder_ffn_dim": 2048,
    "activation_function": "gelu_new",
    "dropout": 0.2,
    "attention_dropout": 0.2,
    "activation_dropout": 0.2,
  },
}
