"""XGLM (Lin et al. 2022) as a decoder: pre-norm, fairseq's sinusoids."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import bart
from encdec.archs.weight_rule import Weight
from encdec.config import NormPosition, PositionKind, Role, StackConfig

PYTORCH_CLASSES = ("XGLMModel", "XGLMForCausalLM")
TOKENIZER = "roberta"
BASE_PREFIX = bart.BASE_PREFIX
# Old files hold the table of positions.
IGNORED = (r"embed_positions\.weights",)
TIED_NAMES = bart.TIED_NAMES
IN_FLAX_457 = True
KEYS = bart.Keys("num_layers", "attention_heads", "ffn_dim", "layerdrop")


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The decoder that a Hub config describes; raises as BART's."""
  return dataclasses.replace(
    bart.decoder_config("xglm", hub, role, KEYS),
    position_kind=PositionKind.FAIRSEQ,
    norm_position=NormPosition.PRE,
    embedding_norm=False,
    final_norm=True,
  )


def weights(config: StackConfig) -> tuple[Weight, ...]:
  """Every tensor of the Hub file."""
  return bart.weights(config, prefix="")


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    "vocab_size": vocab_size,
    "d_model": width,
    "num_layers": layers,
    "attention_heads": heads,
    "ffn_dim": 4 * width,
    "activation_function": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "layerdrop": 0.0,
    "max_position_embeddings": 2048,
    "init_std": 0.02,
    "scale_embedding": True,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
    "tie_word_embeddings": True,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "small": preset(4, 256, 4, 8000),
  "base": preset(24, 1024, 16, 256008),
  "large": preset(24, 2048, 16, 256008),
}
