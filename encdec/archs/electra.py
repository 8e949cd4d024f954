"""ELECTRA (Clark et al. 2020): BERT, with embeddings of another width.

The discriminator is the usual encoder; of the two, the generator alone has the
head that a decoder needs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import bert
from encdec.archs.weight_rule import Weight, linear, norm
from encdec.config import HeadKind, Role, StackConfig

PYTORCH_CLASSES = ("ElectraModel", "ElectraForCausalLM")
TOKENIZER = "wordpiece"
BASE_PREFIX = "electra"
IGNORED = (
  r"(.*\.)?embeddings\.(position_ids|token_type_ids)",
  r"discriminator_predictions\..*",
)
TIED_NAMES = ("generator_lm_head.weight",)
IN_FLAX_457 = False


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The side that a Hub config describes."""
  config = bert.stack_config(hub, role)
  return dataclasses.replace(
    config,
    name="electra",
    embedding_width=hub["embedding_size"],
    embedding_projection=hub["embedding_size"] != config.width,
    pooler=False,
    head_activation="gelu",
  )


def weights(config: StackConfig) -> tuple[Weight, ...]:
  """Every tensor of the side's Hub file."""
  table = bert.embedding_weights(config) + bert.layer_weights(config)
  if config.embedding_projection:
    table += linear("embeddings_project", "embeddings/projection")
  if config.head == HeadKind.TRANSFORM:
    head = "generator_predictions"
    table += linear(f"{head}.dense", "head/transform", base=False)
    table += norm(f"{head}.LayerNorm", "head/norm", base=False)
    table.append(Weight("generator_lm_head.bias", "head/bias", base=False))
    if not config.tied_head:
      table.append(
        Weight("generator_lm_head.weight", "head/kernel", "linear", base=False)
      )
  return tuple(table)


def preset(
  layers: int, embedding: int, width: int, heads: int, vocab_size: int
) -> dict:
  return {
    **bert.preset(layers, width, heads, vocab_size),
    "embedding_size": embedding,
  }


PRESETS = {
  "tiny": preset(2, 64, 96, 4, 1000),
  "small": preset(12, 128, 256, 4, 30522),
  "base": preset(12, 768, 768, 12, 30522),
  "large": preset(24, 1024, 1024, 16, 30522),
  # A base and a large discriminator's generators, narrower than their tables.
  "base_generator": preset(12, 768, 256, 4, 30522),
  "large_generator": preset(24, 1024, 256, 4, 30522),
}
