"""DistilBERT (Sanh et al. 2019) as an encoder: no token types, no pooler."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from encdec.archs import bert
from encdec.archs.weight_rule import Weight, linear, norm
from encdec.config import Role, StackConfig

PYTORCH_CLASSES = ("DistilBertModel", None)
TOKENIZER = "wordpiece"
BASE_PREFIX = "distilbert"
IGNORED = (r"(.*\.)?embeddings\.position_ids",)
TIED_NAMES = ()
IN_FLAX_457 = False
# BERT's names of a config's values, and those that this config lacks.
_BERTS = {
  "hidden_size": "dim",
  "num_hidden_layers": "n_layers",
  "num_attention_heads": "n_heads",
  "intermediate_size": "hidden_dim",
  "hidden_act": "activation",
  "hidden_dropout_prob": "dropout",
  "attention_probs_dropout_prob": "attention_dropout",
}
_CONSTANT = {"type_vocab_size": 0, "layer_norm_eps": 1e-12}


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The encoder that a Hub config describes.

  `sinusoidal_pos_embds` changes nothing of a checkpoint, whose table of
  positions is a parameter like any other; PyTorch draws a random one by it.

  Raises:
    ValueError: DistilBERT is asked for as a decoder.
  """
  role = Role(role)
  if role == Role.DECODER:
    raise ValueError(
      "distilbert cannot be the decoder: PyTorch gives it no cross-attention; "
      "use bert or gpt2 there, and distilbert as the encoder"
    )
  width, heads = hub["dim"], hub["n_heads"]
  if heads < 1 or width % heads:
    raise ValueError(f"dim={width} is no multiple of n_heads={heads}")
  words = {ours: hub[theirs] for ours, theirs in _BERTS.items()}
  config = bert.stack_config({**hub, **words, **_CONSTANT}, role)
  # In attention PyTorch drops weights only, not the output.
  return dataclasses.replace(
    config, name="distilbert", pooler=False, residual_dropout=0.0
  )


def weights(config: StackConfig) -> tuple[Weight, ...]:
  """Every tensor of the Hub file."""
  del config
  layer = "transformer.layer.{layer}"
  attention, path = f"{layer}.attention", "layers/self_attention"
  return (
    Weight("embeddings.word_embeddings.weight", "embeddings/tokens/embedding"),
    Weight(
      "embeddings.position_embeddings.weight", "embeddings/positions/embedding"
    ),
    *norm("embeddings.LayerNorm", "embeddings/norm"),
    *linear(f"{attention}.q_lin", f"{path}/query", "heads"),
    *linear(f"{attention}.k_lin", f"{path}/key", "heads"),
    *linear(f"{attention}.v_lin", f"{path}/value", "heads"),
    *linear(f"{attention}.out_lin", f"{path}/out", "merge"),
    *norm(f"{layer}.sa_layer_norm", f"{path}_norm"),
    *linear(f"{layer}.ffn.lin1", "layers/mlp/up"),
    *linear(f"{layer}.ffn.lin2", "layers/mlp/down"),
    *norm(f"{layer}.output_layer_norm", "layers/mlp_norm"),
  )


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    "vocab_size": vocab_size,
    "max_position_embeddings": 512,
    "sinusoidal_pos_embds": False,
    "n_layers": layers,
    "n_heads": heads,
    "dim": width,
    "hidden_dim": 4 * width,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation": "gelu",
    "initializer_range": 0.02,
    "pad_token_id": 0,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "small": preset(4, 256, 4, 8000),
  "base": preset(6, 768, 12, 30522),
  "multilingual": preset(6, 768, 12, 119547),
}
