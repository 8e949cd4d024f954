"""DistilBERT (Sanh et al. 2019), an encoder: BERT without types and pooler."""

from collections.abc import Mapping
from typing import Any

from encdec.archs.weights import Weight, linear, norm
from encdec.config import (
  HeadKind,
  NormPosition,
  PositionKind,
  Role,
  StackConfig,
)

BASE_PREFIX = "distilbert"
IGNORED = (r"(.*\.)?embeddings\.position_ids",)
TIED_NAMES = ()


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
  if width % heads:
    raise ValueError(f"dim={width} is no multiple of n_heads={heads}")
  return StackConfig(
    name="distilbert",
    role=role,
    vocab_size=hub["vocab_size"],
    width=width,
    num_layers=hub["n_layers"],
    stored_layers=hub["n_layers"],
    num_heads=heads,
    num_kv_heads=heads,
    head_width=width // heads,
    mlp_width=hub["hidden_dim"],
    embedding_width=width,
    embedding_projection=False,
    max_positions=hub["max_position_embeddings"],
    position_kind=PositionKind.LEARNED,
    position_offset=0,
    positions_from_ids=False,
    type_vocab_size=0,
    norm_position=NormPosition.POST,
    norm_epsilon=1e-12,
    activation=hub["activation"],
    embedding_scale=1.0,
    given_embedding_scale=1.0,
    embedding_norm=True,
    final_norm=False,
    pooler=False,
    head=HeadKind.NONE,
    head_activation=hub["activation"],
    head_bias=False,
    tied_head=True,
    embedding_dropout=hub["dropout"],
    residual_dropout=hub["dropout"],
    attention_dropout=hub["attention_dropout"],
    activation_dropout=0.0,
    init_std=hub["initializer_range"],
    residual_init_scale=1.0,
    attention_scale=(width // heads) ** -0.5,
    scale_by_layer=False,
    pad_token_id=hub["pad_token_id"],
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
    "model_type": "distilbert",
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
