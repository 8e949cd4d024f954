"""What the backward pass finds stored, and in which memory."""

import jax
import jax.numpy as jnp
import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule, param_shapes

# How a traced copy names the memory of "pinned_host".
HOST = "MemorySpace.Host"
TINY = ARCHS["bert"].PRESETS["tiny"]


def program(remat: str, platform: str) -> str:
  """The traced gradient of the encoder's states."""
  config = EncDecConfig(
    ARCHS["bert"].stack_config(TINY, "encoder"),
    ARCHS["bert"].stack_config(TINY, "decoder"),
  )
  module = FlaxEncoderDecoderModule(config, remat=remat, platform=platform)
  rows = jnp.ones((2, 8), jnp.int32)

  def loss(params):
    encoded = module.apply(
      {"params": params},
      tokens=rows,
      segments=rows,
      positions=rows,
      method="encode",
    )
    return jnp.sum(encoded.states)

  return str(jax.make_jaxpr(jax.grad(loss))(param_shapes(module)))


def test_values_that_are_named_for_the_host_go_there():
  assert HOST not in program("ctx+mlp", "tpu")
  moved = program("ctx+host:mlp", "tpu")
  both = program("host:ctx+host:mlp", "tpu")
  assert 0 < moved.count(HOST) < both.count(HOST)


def test_a_cpu_has_no_other_memory():
  with pytest.raises(ValueError, match=r"remat='host:mlp': a CPU's memory is"):
    program("host:mlp", "cpu")


def test_a_value_that_no_layer_has_is_refused():
  with pytest.raises(ValueError, match=r"'all' is unknown.*'host:' before it"):
    program("ctx+host:all", "tpu")
