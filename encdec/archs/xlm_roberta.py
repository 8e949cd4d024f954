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
  return dataclasses.replace(
    roberta.stack_config(hub, role), name="xlm_roberta"
  )


PRESETS = {
  "tiny": roberta.preset(2, 96, 4, 1000),
  "small": roberta.preset(4, 256, 4, 8000),
  "base": roberta.preset(12, 768, 12, 250002),
  "large": roberta.preset(24, 1024, 16, 250002),
}
