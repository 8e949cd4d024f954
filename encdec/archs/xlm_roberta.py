"""XLM-R (Conneau et al. 2020): RoBERTa for a hundred languages."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import roberta
from encdec.config import Role, StackConfig

PYTORCH_CLASSES = ("XLMRobertaModel", "XLMRobertaForCausalLM")
TOKENIZER = "roberta"
BASE_PREFIX = roberta.BASE_PREFIX
IGNORED = roberta.IGNORED
TIED_NAMES = roberta.TIED_NAMES
IN_FLAX_457 = True
weights = roberta.weights


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The side that a Hub config describes."""
  config = roberta.stack_config(hub, role)
  return dataclasses.replace(config, name="xlm_roberta")


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    **roberta.preset(layers, width, heads, vocab_size),
    "model_type": "xlm-roberta",
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "small": preset(4, 256, 4, 8000),
  "base": preset(12, 768, 12, 250002),
  "large": preset(24, 1024, 16, 250002),
}
