"""RoBERTa-PreLayerNorm (Wettig et al. 2023): norms before the sublayers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import bert, roberta
from encdec.archs.weight_rule import Weight, norm
from encdec.config import NormPosition, Role, StackConfig

PYTORCH_CLASSES = ("RobertaPreLayerNormModel", "RobertaPreLayerNormForCausalLM")
TOKENIZER = "roberta"
BASE_PREFIX = "roberta_prelayernorm"
IGNORED = roberta.IGNORED
TIED_NAMES = roberta.TIED_NAMES
IN_FLAX_457 = True


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The side that a Hub config describes."""
  return dataclasses.replace(
    roberta.stack_config(hub, role),
    name="roberta_prelayernorm",
    norm_position=NormPosition.PRE,
    final_norm=True,
  )


def weights(config: StackConfig) -> tuple[Weight, ...]:
  """Every tensor of the side's Hub file; norms stand before what they norm."""
  layer = "encoder.layer.{layer}"
  table = bert.embedding_weights(config)
  table += [w for w in bert.layer_weights(config) if ".LayerNorm." not in w.hub]
  table += norm(f"{layer}.attention.LayerNorm", "layers/self_attention_norm")
  if config.role == Role.DECODER:
    table += norm(
      f"{layer}.crossattention.LayerNorm", "layers/cross_attention_norm"
    )
  table += norm(f"{layer}.intermediate.LayerNorm", "layers/mlp_norm")
  table += norm("LayerNorm", "final_norm")
  return (*table, *roberta.top_weights(config))


PRESETS = {
  "tiny": roberta.preset(2, 96, 4, 1000),
  "small": roberta.preset(4, 256, 4, 8000),
  "base": roberta.preset(12, 768, 12, 50265),
  "large": roberta.preset(24, 1024, 16, 50265),
}
