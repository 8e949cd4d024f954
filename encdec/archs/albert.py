"""ALBERT (Lan et al. 2020) as an encoder: all layers share one's parameters.

No dropout follows the feed-forward layer: PyTorch's has none there, where the
paper's code has; the second version's rates are 0.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import bert
from encdec.archs.weight_rule import Weight, linear, norm
from encdec.config import Role, StackConfig

PYTORCH_CLASSES = ("AlbertModel", None)
TOKENIZER = "wordpiece"
BASE_PREFIX = "albert"
IGNORED = (r"(.*\.)?embeddings\.(position_ids|token_type_ids)",)
TIED_NAMES = ()
IN_FLAX_457 = False


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The encoder that a Hub config describes.

  Raises:
    ValueError: ALBERT is asked for as a decoder, or its layers are not one.
  """
  if Role(role) == Role.DECODER:
    raise ValueError(
      "albert cannot be the decoder: PyTorch gives it no cross-attention; use "
      "bert or gpt2 there, and albert as the encoder"
    )
  for name in ("num_hidden_groups", "inner_group_num"):
    if hub[name] != 1:
      raise ValueError(
        f"{name}={hub[name]} is not supported; only 1 is: all layers share "
        "the parameters of one"
      )
  return dataclasses.replace(
    bert.stack_config(hub, role),
    name="albert",
    stored_layers=1,
    mlp_dropout=0.0,
    embedding_width=hub["embedding_size"],
    embedding_projection=True,
  )


def weights(config: StackConfig) -> tuple[Weight, ...]:
  """Every tensor of the Hub file, which calls the shared layer a group."""
  layer = "encoder.albert_layer_groups.{layer}.albert_layers.0"
  attention, path = f"{layer}.attention", "layers/self_attention"
  pooler = linear("pooler", "pooler") if config.pooler else ()
  return (
    *bert.embedding_weights(config),
    *linear("encoder.embedding_hidden_mapping_in", "embeddings/projection"),
    *linear(f"{attention}.query", f"{path}/query", "heads"),
    *linear(f"{attention}.key", f"{path}/key", "heads"),
    *linear(f"{attention}.value", f"{path}/value", "heads"),
    *linear(f"{attention}.dense", f"{path}/out", "merge"),
    *norm(f"{attention}.LayerNorm", f"{path}_norm"),
    *linear(f"{layer}.ffn", "layers/mlp/up"),
    *linear(f"{layer}.ffn_output", "layers/mlp/down"),
    *norm(f"{layer}.full_layer_layer_norm", "layers/mlp_norm"),
    *pooler,
  )


def preset(
  layers: int, embedding: int, width: int, heads: int, vocab_size: int
) -> dict:
  return {
    **bert.preset(layers, width, heads, vocab_size),
    "embedding_size": embedding,
    "num_hidden_groups": 1,
    "inner_group_num": 1,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
  }


PRESETS = {
  "tiny": preset(3, 64, 96, 4, 1000),
  "small": preset(4, 128, 256, 4, 8000),
  "base": preset(12, 128, 768, 12, 30000),
  "large": preset(24, 128, 1024, 16, 30000),
  "xlarge": preset(24, 128, 2048, 16, 30000),
  "xxlarge": preset(12, 128, 4096, 64, 30000),
}
