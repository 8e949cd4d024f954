"""GPT-2 (Radford et al. 2019) as a decoder: pre-norm, tanh GELU, Conv1D."""

from collections.abc import Mapping
from typing import Any

from encdec.archs.weight_rule import Weight, norm
from encdec.config import (
  HeadKind,
  NormPosition,
  PositionKind,
  Role,
  StackConfig,
)

PYTORCH_CLASSES = ("GPT2Model", "GPT2LMHeadModel")
TOKENIZER = "gpt2"
BASE_PREFIX = "transformer"
IGNORED = (r"(.*\.)?h\.\d+\.(attn|crossattention)\.(bias|masked_bias)",)
TIED_NAMES = ("lm_head.weight",)
IN_FLAX_457 = True


def stack_config(hub: Mapping[str, Any], role: Role | str) -> StackConfig:
  """The decoder that a Hub config describes.

  Raises:
    ValueError: GPT-2 is asked for as an encoder.
  """
  role = Role(role)
  if role == Role.ENCODER:
    raise ValueError(
      "gpt2 cannot be the encoder: it is autoregressive; use an autoencoding "
      "model such as bert or roberta there, and gpt2 as the decoder"
    )
  width, heads = hub["n_embd"], hub["n_head"]
  if heads < 1 or width % heads:
    raise ValueError(f"n_embd={width} is no multiple of n_head={heads}")
  head_width = width // heads
  return StackConfig(
    name="gpt2",
    role=role,
    vocab_size=hub["vocab_size"],
    width=width,
    num_layers=hub["n_layer"],
    stored_layers=hub["n_layer"],
    num_heads=heads,
    num_kv_heads=heads,
    head_width=head_width,
    mlp_width=hub["n_inner"] or 4 * width,
    embedding_width=width,
    max_positions=hub["n_positions"],
    position_kind=PositionKind.LEARNED,
    norm_position=NormPosition.PRE,
    norm_epsilon=hub["layer_norm_epsilon"],
    activation=hub["activation_function"],
    embedding_norm=False,
    final_norm=True,
    head=HeadKind.LINEAR,
    head_activation=hub["activation_function"],
    tied_head=hub.get("tie_word_embeddings", True),
    embedding_dropout=hub["embd_pdrop"],
    residual_dropout=hub["resid_pdrop"],
    mlp_dropout=hub["resid_pdrop"],
    attention_dropout=hub["attn_pdrop"],
    init_std=hub["initializer_range"],
    residual_init_scale=(2 * hub["n_layer"]) ** -0.5,
    attention_scale=head_width**-0.5 if hub["scale_attn_weights"] else 1.0,
    scale_by_layer=hub["scale_attn_by_inverse_layer_idx"],
    pad_token_id=hub["pad_token_id"],
  )


def weights(config: StackConfig) -> tuple[Weight, ...]:
  """Every tensor of the Hub file; query, key and value lie fused in it."""
  table = [
    Weight("wte.weight", "embeddings/tokens/embedding"),
    Weight("wpe.weight", "embeddings/positions/embedding"),
    *norm("ln_f", "final_norm"),
    *norm("h.{layer}.ln_1", "layers/self_attention_norm"),
    *norm("h.{layer}.ln_cross_attn", "layers/cross_attention_norm"),
    *norm("h.{layer}.ln_2", "layers/mlp_norm"),
    *_fused("attn.c_attn", "self_attention", ("query", "key", "value")),
    *_fused("crossattention.q_attn", "cross_attention", ("query",)),
    *_fused("crossattention.c_attn", "cross_attention", ("key", "value")),
    *_conv("attn.c_proj", "self_attention/out", "conv_merge"),
    *_conv("crossattention.c_proj", "cross_attention/out", "conv_merge"),
    *_conv("mlp.c_fc", "mlp/up", "copy"),
    *_conv("mlp.c_proj", "mlp/down", "copy"),
  ]
  if not config.tied_head:
    table.append(Weight("lm_head.weight", "head/kernel", "linear", base=False))
  return tuple(table)


def _conv(hub: str, path: str, op: str) -> tuple[Weight, ...]:
  return (
    Weight(f"h.{{layer}}.{hub}.weight", f"layers/{path}/kernel", op),
    Weight(f"h.{{layer}}.{hub}.bias", f"layers/{path}/bias"),
  )


def _fused(
  hub: str, attention: str, names: tuple[str, ...]
) -> tuple[Weight, ...]:
  table = []
  tensor = f"h.{{layer}}.{hub}"
  for part, name in enumerate(names):
    path, slices = f"layers/{attention}/{name}", (part, len(names))
    table += [
      Weight(f"{tensor}.weight", f"{path}/kernel", "conv_heads", *slices),
      Weight(f"{tensor}.bias", f"{path}/bias", "heads_bias", *slices),
    ]
  return tuple(table)


def preset(layers: int, width: int, heads: int, vocab_size: int) -> dict:
  return {
    "vocab_size": vocab_size,
    "n_positions": 1024,
    "n_embd": width,
    "n_layer": layers,
    "n_head": heads,
    "n_inner": None,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "pad_token_id": None,
    "tie_word_embeddings": True,
  }


PRESETS = {
  "tiny": preset(2, 96, 4, 600),
  "mini": preset(2, 128, 4, 2000),
  "small": preset(4, 256, 4, 8000),
  "base": preset(12, 768, 12, 50257),
  "medium": preset(24, 1024, 16, 50257),
  "large": preset(36, 1280, 20, 50257),
}
