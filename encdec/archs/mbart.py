"""mBART (Liu et al. 2020) as a decoder: BART, pre-norm, with a final norm."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import bart
from encdec.config import NormPosition, Role, StackConfig

PYTORCH_CLASSES = ("MBartModel", "MBartForCausalLM")
TOKENIZER = "roberta"
BASE_PREFIX = bart.BASE_PREFIX
IGNORED = bart.IGNORED
TIED_NAMES = bart.TIED_NAMES
IN_FLAX_457 = False
weights = bart.weights


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The decoder that a Hub config describes; raises as BART's."""
  return dataclasses.replace(
    bart.decoder_config("mbart", hub, role),
    norm_position=NormPosition.PRE,
    final_norm=True,
  )


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    **bart.preset(layers, width, heads, vocab_size),
    "scale_embedding": True,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "small": preset(4, 256, 4, 8000),
  "large": preset(12, 1024, 16, 250027),
}
