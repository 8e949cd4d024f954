"""Models and steps that the tests of sharding compare on meshes."""

import dataclasses
from typing import Any

import jax
import numpy as np

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.model import (
  FlaxEncoderDecoderModule,
  param_shapes,
)
from encdec.sharding import DEFAULT_RULES
from train.losses import LossConfig
from train.mesh import MeshConfig, make_mesh
from train.optim.optimizer import make_optimizer
from train.optim.settings import OptimConfig

ROWS, SOURCE, TARGET, WIDTH = 16, 12, 7, 16
# (data, fsdp, tensor).
ONE, MIXED = (1, 1, 1), (2, 2, 2)
MESHES = ((8, 1, 1), (1, 8, 1), (1, 1, 8), MIXED)


@dataclasses.dataclass(frozen=True)
class Case:
  """A model and a step.

  Reduced counts compare MIXED, and one more of `meshes`, with one device.
  """

  vocab_size: int
  dropout: float
  attention_dropout: str
  accumulate_steps: int
  loss_chunks: int
  loss: LossConfig
  meshes: tuple[tuple[int, int, int], ...]


CASES = {
  "off": Case(120, 0.0, "values", 1, 1, LossConfig(0.1), MESHES),
  "values": Case(
    50257,
    0.1,
    "values",
    2,
    2,
    LossConfig(0.1, "others", z_loss=1e-3, r_drop=1.0),
    (MIXED,),
  ),
  "weights": Case(120, 0.1, "weights", 1, 1, LossConfig(0.1), (MIXED,)),
}
OPTIM = OptimConfig(
  name="adamw",
  lr=3e-3,
  schedule="linear",
  warmup_steps=2,
  b1=0.9,
  b2=0.98,
  eps=1e-8,
  weight_decay=0.01,
  clip_norm=1.0,
)
OPTIMIZER = make_optimizer(OPTIM, 20, WIDTH)


def module_of(case: Case) -> FlaxEncoderDecoderModule:
  bert = ARCHS["bert"].PRESETS["tiny"] | {
    "vocab_size": 100,
    "hidden_size": WIDTH,
    "num_attention_heads": 8,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": case.dropout,
    "attention_probs_dropout_prob": case.dropout,
  }
  gpt2 = ARCHS["gpt2"].PRESETS["tiny"] | {
    "vocab_size": case.vocab_size,
    "n_embd": WIDTH,
    "n_head": 8,
    "n_inner": 24,
    "n_positions": 16,
    "resid_pdrop": case.dropout,
    "embd_pdrop": case.dropout,
    "attn_pdrop": case.dropout,
  }
  return FlaxEncoderDecoderModule(
    EncDecConfig(
      ARCHS["bert"].stack_config(bert, "encoder"),
      ARCHS["gpt2"].stack_config(gpt2, "decoder"),
      vocab_multiple=128,
    ),
    attention_dropout=case.attention_dropout,
    rules=DEFAULT_RULES,
  )


def params_of(module: FlaxEncoderDecoderModule) -> Any:
  """A host's parameters, every one of them other than its neighbours."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: 0.1 * rng.normal(size=leaf.shape).astype(np.float32),
    param_shapes(module),
  )


def batch_of(case: Case, seed: int) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)

  def side(length: int, vocab_size: int):
    lengths = rng.integers(2, length + 1, (ROWS, 1))
    segments = (np.arange(length)[None] < lengths).astype(np.int32)
    tokens = rng.integers(1, vocab_size, (ROWS, length)) * segments
    positions = np.arange(length)[None] * segments
    return tokens.astype(np.int32), segments, positions.astype(np.int32)

  source, target = side(SOURCE, 100), side(TARGET, case.vocab_size)
  return {
    "encoder_tokens": source[0],
    "encoder_segments": source[1],
    "encoder_positions": source[2],
    "decoder_inputs": np.roll(target[0], 1, axis=1),
    "decoder_targets": target[0],
    "decoder_segments": target[1],
    "decoder_positions": target[2],
    "decoder_weights": target[1].astype(np.float32),
  }


def mesh_of(sizes: tuple[int, int, int]) -> jax.sharding.Mesh:
  return make_mesh(MeshConfig(1, *sizes), jax.devices()[: np.prod(sizes)])
