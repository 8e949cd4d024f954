"""The step of a TPU that is not here, compiled: which kernels are in it."""

import collections
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies

from configs import common
from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule
from tests.train.test_mesh_topologies import ENVIRONMENT, pytestmark
from train.build_step import build_step
from train.mesh import MeshConfig, batch_sharding, make_mesh, sharding_rules

__all__ = ["pytestmark"]
ROWS, SOURCE, TARGET, WIDTH = 4, 512, 128, 128


@pytest.fixture(scope="module")
def kernels():
  """How often each kernel stands in the program, by its name."""
  done = subprocess.run(
    [sys.executable, __file__],
    capture_output=True,
    text=True,
    timeout=600,
    env=os.environ | ENVIRONMENT,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.sample(2, group="compiled for accelerators")
def test_attention_is_fused_and_runs_forward_once(kernels):
  """Self-attention of both sides and cross-attention, in two scanned layers.

  The backward pass of a layer that saves "ctx" alone finds what the kernel gave
  and does not run it again.
  """
  assert kernels == {"short_fwd": 3, "short_bwd": 3}


def _abstract_batch(place):
  def rows(length, dtype):
    return jax.ShapeDtypeStruct((ROWS, length), dtype, sharding=place)

  encoder = ("tokens", "segments", "positions")
  decoder = ("inputs", "targets", "segments", "positions")
  return {
    **{f"encoder_{name}": rows(SOURCE, jnp.int32) for name in encoder},
    **{f"decoder_{name}": rows(TARGET, jnp.int32) for name in decoder},
    "decoder_weights": rows(TARGET, jnp.float32),
  }


def _program() -> str:
  chips = topologies.get_topology_desc(
    platform="tpu", topology_name="v5e:2x2"
  ).devices
  # The two heads on two chips, the batch on two.
  mesh = make_mesh(MeshConfig(data=2, tensor=2), chips)
  config = common.get_config()
  rules = sharding_rules(config)
  bert = ARCHS["bert"].PRESETS["tiny"] | {
    "hidden_size": WIDTH,
    "num_attention_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": SOURCE,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
  }
  module = FlaxEncoderDecoderModule(
    EncDecConfig(
      ARCHS["bert"].stack_config(bert, "encoder"),
      ARCHS["bert"].stack_config(bert, "decoder"),
      vocab_multiple=128,
    ),
    dtype=jnp.bfloat16,
    remat="ctx",
    rules=rules,
  )
  program = build_step(config, module, mesh)
  batch = _abstract_batch(batch_sharding(mesh, rules))
  with jax.set_mesh(mesh):
    traced = program.step.trace(program.state, batch)
    lowered = traced.lower(lowering_platforms=("tpu",))
    return lowered.compile().as_text()


if __name__ == "__main__":
  assert jax.default_backend() == "cpu"
  calls = [
    line
    for line in _program().splitlines()
    if 'custom_call_target="tpu_custom_call"' in line
  ]
  names = [re.findall(r"%(short_[a-z]+)", line)[0] for line in calls]
  print(json.dumps(collections.Counter(names)))
