"""BERT (Devlin et al. 2019): post-norm, learned positions, exact GELU."""

from collections.abc import Mapping
from typing import Any

from encdec.archs.weight_rule import Weight, linear, norm
from encdec.config import (
  HeadKind,
  NormPosition,
  PositionKind,
  Role,
  StackConfig,
)

PYTORCH_CLASSES = ("BertModel", "BertLMHeadModel")
TOKENIZER = "wordpiece"
BASE_PREFIX = "bert"
HEAD_PREFIX = "cls.predictions"
IGNORED = (
  r"(.*\.)?embeddings\.(position_ids|token_type_ids)",
  r"cls\.seq_relationship\..*",
)
TIED_NAMES = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
IN_FLAX_457 = True


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The side that a Hub config describes."""
  role = Role(role)
  width, heads = hub["hidden_size"], hub["num_attention_heads"]
  if heads < 1 or width % heads:
    raise ValueError(
      f"hidden_size={width} is no multiple of num_attention_heads={heads}"
    )
  if hub.get("position_embedding_type", "absolute") != "absolute":
    raise ValueError(
      f"position_embedding_type={hub['position_embedding_type']!r} is not "
      "supported; only 'absolute' is"
    )
  decoder = role == Role.DECODER
  return StackConfig(
    name="bert",
    role=role,
    vocab_size=hub["vocab_size"],
    width=width,
    num_layers=hub["num_hidden_layers"],
    stored_layers=hub["num_hidden_layers"],
    num_heads=heads,
    num_kv_heads=heads,
    head_width=width // heads,
    mlp_width=hub["intermediate_size"],
    embedding_width=width,
    max_positions=hub["max_position_embeddings"],
    position_kind=PositionKind.LEARNED,
    type_vocab_size=hub["type_vocab_size"],
    norm_position=NormPosition.POST,
    norm_epsilon=hub["layer_norm_eps"],
    activation=hub["hidden_act"],
    embedding_norm=True,
    final_norm=False,
    pooler=not decoder and bool(hub.get("has_pooler", True)),
    head=HeadKind.TRANSFORM if decoder else HeadKind.NONE,
    head_activation=hub["hidden_act"],
    head_bias=decoder,
    tied_head=hub.get("tie_word_embeddings", True),
    embedding_dropout=hub["hidden_dropout_prob"],
    residual_dropout=hub["hidden_dropout_prob"],
    mlp_dropout=hub["hidden_dropout_prob"],
    attention_dropout=hub["attention_probs_dropout_prob"],
    init_std=hub["initializer_range"],
    attention_scale=(width // heads) ** -0.5,
    pad_token_id=hub["pad_token_id"],
  )


def weights(config: StackConfig) -> tuple[Weight, ...]:
  """Every tensor of the side's Hub file."""
  table = [*embedding_weights(config), *layer_weights(config)]
  if config.pooler:
    table += linear("pooler.dense", "pooler")
  if config.head == HeadKind.TRANSFORM:
    head = HEAD_PREFIX
    table += linear(f"{head}.transform.dense", "head/transform", base=False)
    table += norm(f"{head}.transform.LayerNorm", "head/norm", base=False)
    table += output_weights(config, head)
  return tuple(table)


def embedding_weights(config: StackConfig) -> list[Weight]:
  """Token, position and type tables and their norm."""
  names = [("word", "tokens"), ("position", "positions")]
  if config.type_vocab_size:
    names.append(("token_type", "types"))
  return [
    Weight(
      f"embeddings.{hub}_embeddings.weight", f"embeddings/{name}/embedding"
    )
    for hub, name in names
  ] + [*norm("embeddings.LayerNorm", "embeddings/norm")]


def layer_weights(config: StackConfig) -> list[Weight]:
  """The layers, named alike by BERT, RoBERTa and BertGeneration."""
  layer = "encoder.layer.{layer}"
  kinds = [("attention", "self_attention")]
  if config.role == Role.DECODER:
    kinds.append(("crossattention", "cross_attention"))
  table = []
  for hub, path in kinds:
    for name in ("query", "key", "value"):
      table += linear(
        f"{layer}.{hub}.self.{name}", f"layers/{path}/{name}", "heads"
      )
    table += linear(
      f"{layer}.{hub}.output.dense", f"layers/{path}/out", "merge"
    )
    table += norm(f"{layer}.{hub}.output.LayerNorm", f"layers/{path}_norm")
  table += linear(f"{layer}.intermediate.dense", "layers/mlp/up")
  table += linear(f"{layer}.output.dense", "layers/mlp/down")
  table += norm(f"{layer}.output.LayerNorm", "layers/mlp_norm")
  return table


def output_weights(config: StackConfig, head: str) -> list[Weight]:
  """The vocabulary's bias and, where it is not tied, its matrix.

  PyTorch applies `decoder.bias`, which is `bias` itself in a tied head, unless
  a file holds both.
  """
  applied = f"{head}.decoder.bias"
  if config.tied_head:
    return [
      Weight(f"{head}.bias", "head/bias", base=False, preferred=applied),
    ]
  return [
    Weight(f"{head}.decoder.weight", "head/kernel", "linear", base=False),
    Weight(applied, "head/bias", base=False),
    Weight(f"{head}.bias", "head/bias", base=False, alias=True),
  ]


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    "vocab_size": vocab_size,
    "hidden_size": width,
    "num_hidden_layers": layers,
    "num_attention_heads": heads,
    "intermediate_size": 4 * width,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "mini": preset(2, 128, 4, 4000),
  "small": preset(4, 256, 4, 8000),
  "base": preset(12, 768, 12, 30522),
  "large": preset(24, 1024, 16, 30522),
}
