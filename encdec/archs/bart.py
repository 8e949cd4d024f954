"""BART (Lewis et al. 2020) as a decoder: post-norm, positions from row 2.

What mBART, Pegasus, Marian, Blenderbot and XGLM share with it is here too.
"""

import dataclasses
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

PYTORCH_CLASSES = ("BartModel", "BartForCausalLM")
TOKENIZER = "roberta"
BASE_PREFIX = "model"
# What a file of the whole sequence-to-sequence model also holds.
IGNORED = (
  r"encoder\..*",
  r"shared\.weight",
  r"decoder\.version",
  r"final_logits_bias",
  r"(classification_head|qa_outputs)\..*",
)
TIED_NAMES = ("lm_head.weight",)
IN_FLAX_457 = True


@dataclasses.dataclass(frozen=True)
class Keys:
  """The keys of a Hub config that hold the decoder's sizes."""

  layers: str = "decoder_layers"
  heads: str = "decoder_attention_heads"
  mlp_width: str = "decoder_ffn_dim"
  layerdrop: str = "decoder_layerdrop"


KEYS = Keys()


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The decoder that a Hub config describes; raises as `decoder_config`."""
  return decoder_config("bart", hub, role)


def decoder_config(
  name: str,
  hub: Mapping[str, Any],
  role: Role | str,
  keys: Keys = KEYS,
) -> StackConfig:
  """BART's decoder, of which the other architectures replace facts.

  Raises:
    ValueError: it is asked for as an encoder, or a value is not supported.
  """
  role = Role(role)
  _check(name, hub, role, keys)
  width, heads, layers = hub["d_model"], hub[keys.heads], hub[keys.layers]
  head_width = width // heads
  return StackConfig(
    name=name,
    role=role,
    vocab_size=hub["vocab_size"],
    width=width,
    num_layers=layers,
    stored_layers=layers,
    num_heads=heads,
    num_kv_heads=heads,
    head_width=head_width,
    mlp_width=hub[keys.mlp_width],
    embedding_width=width,
    max_positions=hub["max_position_embeddings"],
    position_kind=PositionKind.LEARNED,
    position_offset=2,
    norm_position=NormPosition.POST,
    norm_epsilon=1e-5,
    activation=hub["activation_function"],
    embedding_scale=width**0.5 if hub["scale_embedding"] else 1.0,
    embedding_norm=True,
    final_norm=False,
    head=HeadKind.LINEAR,
    head_activation=hub["activation_function"],
    tied_head=hub.get("tie_word_embeddings", True),
    embedding_dropout=hub["dropout"],
    residual_dropout=hub["dropout"],
    mlp_dropout=hub["dropout"],
    attention_dropout=hub["attention_dropout"],
    activation_dropout=hub["activation_dropout"],
    init_std=hub["init_std"],
    attention_scale=head_width**-0.5,
    pad_token_id=hub["pad_token_id"],
  )


def _check(name: str, hub: Mapping[str, Any], role: Role, keys: Keys) -> None:
  if role == Role.ENCODER:
    raise ValueError(
      f"{name} cannot be the encoder: only its decoder is supported; use an "
      f"autoencoding model such as bert or roberta there, and {name} as the "
      "decoder"
    )
  width, heads = hub["d_model"], hub[keys.heads]
  if heads < 1 or width % heads:
    raise ValueError(f"d_model={width} is no multiple of {keys.heads}={heads}")
  if hub[keys.layerdrop]:
    raise ValueError(
      f"{keys.layerdrop}={hub[keys.layerdrop]} is not supported: set it to "
      "0.0, which leaves no layer out"
    )


def weights(
  config: StackConfig, prefix: str = "decoder."
) -> tuple[Weight, ...]:
  """Every tensor of the Hub file; `prefix` stands before the stack's names."""
  tokens = "embeddings/tokens/embedding"
  table = [
    Weight(f"{prefix}embed_tokens.weight", tokens, fallback="shared.weight")
  ]
  if config.position_kind == PositionKind.LEARNED:
    positions = "embeddings/positions/embedding"
    table.append(Weight(f"{prefix}embed_positions.weight", positions))
  if config.embedding_norm:
    table += norm(f"{prefix}layernorm_embedding", "embeddings/norm")
  if config.final_norm:
    table += norm(f"{prefix}layer_norm", "final_norm")
  layer = f"{prefix}layers.{{layer}}"
  for hub, path in (
    ("self_attn", "self_attention"),
    ("encoder_attn", "cross_attention"),
  ):
    for name in ("query", "key", "value"):
      table += linear(
        f"{layer}.{hub}.{name[0]}_proj", f"layers/{path}/{name}", "heads"
      )
    table += linear(f"{layer}.{hub}.out_proj", f"layers/{path}/out", "merge")
    table += norm(f"{layer}.{hub}_layer_norm", f"layers/{path}_norm")
  table += linear(f"{layer}.fc1", "layers/mlp/up")
  table += linear(f"{layer}.fc2", "layers/mlp/down")
  table += norm(f"{layer}.final_layer_norm", "layers/mlp_norm")
  if not config.tied_head:
    table.append(Weight("lm_head.weight", "head/kernel", "linear", base=False))
  return tuple(table)


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    "vocab_size": vocab_size,
    "d_model": width,
    "decoder_layers": layers,
    "decoder_attention_heads": heads,
    "decoder_ffn_dim": 4 * width,
    "encoder_layers": layers,
    "encoder_attention_heads": heads,
    "encoder_ffn_dim": 4 * width,
    "activation_function": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "decoder_layerdrop": 0.0,
    "max_position_embeddings": 1024,
    "init_std": 0.02,
    "scale_embedding": False,
    "pad_token_id": 1,
    "decoder_start_token_id": None,
    "forced_eos_token_id": None,
    "tie_word_embeddings": True,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 1000),
  "small": preset(4, 256, 4, 8000),
  "base": preset(6, 768, 12, 50265),
  "large": preset(12, 1024, 16, 50265),
}
