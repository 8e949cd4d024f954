"""What the backward pass finds stored, and in which memory."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule, param_shapes

# How a traced copy names the memory of "pinned_host".
HOST = "MemorySpace.Host"
TINY = ARCHS["bert"].PRESETS["tiny"]


def program(
  remat: str,
  platform: str,
  dtype: Any = jnp.float32,
  param_dtype: Any = jnp.float32,
) -> Any:
  """The traced gradient of the encoder's states."""
  config = EncDecConfig(
    ARCHS["bert"].stack_config(TINY, "encoder"),
    ARCHS["bert"].stack_config(TINY, "decoder"),
  )
  module = FlaxEncoderDecoderModule(
    config,
    dtype=dtype,
    param_dtype=param_dtype,
    remat=remat,
    platform=platform,
  )
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

  return jax.make_jaxpr(jax.grad(loss))(param_shapes(module))


def test_gradients_of_kernels_are_stacked_in_the_dtype_of_the_computation():
  """In bfloat16 they take half the memory; what the update gets is float32."""
  traced = program("ctx", "tpu", jnp.bfloat16)
  _, backward = (e for e in traced.eqns if e.primitive.name == "scan")
  width, inner = TINY["hidden_size"], TINY["intermediate_size"]
  kernels = (TINY["num_hidden_layers"], width, inner)
  stacked = [x.aval.dtype for x in backward.outvars if x.aval.shape == kernels]
  assert stacked == [jnp.bfloat16]
  given = [out.dtype for out in traced.out_avals if out.shape == kernels]
  assert given and set(given) == {jnp.dtype("float32")}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_kernels_are_not_stacked_for_the_backward_pass(dtype):
  """They lie stacked already, as the scan reads them."""
  traced = program("none", "tpu", dtype)
  forward, _ = (e for e in traced.eqns if e.primitive.name == "scan")
  count, width = TINY["num_hidden_layers"], TINY["hidden_size"]
  square = (count, width, width)
  assert square in [x.aval.shape for x in forward.invars]
  assert square not in [x.aval.shape for x in forward.outvars]


def test_parameters_narrower_than_the_computation_stay_so():
  traced = program("ctx", "tpu", jnp.float32, jnp.bfloat16)
  forward, _ = (e for e in traced.eqns if e.primitive.name == "scan")
  count, width = TINY["num_hidden_layers"], TINY["hidden_size"]
  square = (count, width, width)
  kernels = [x.aval.dtype for x in forward.invars if x.aval.shape == square]
  assert kernels and set(kernels) == {jnp.dtype("bfloat16")}


def test_values_that_are_named_for_the_host_go_there():
  assert HOST not in str(program("ctx+mlp", "tpu"))
  moved = str(program("ctx+host:mlp", "tpu"))
  both = str(program("host:ctx+host:mlp", "tpu"))
  assert 0 < moved.count(HOST) < both.count(HOST)


def test_a_cpu_has_no_other_memory():
  with pytest.raises(ValueError, match=r"remat='host:mlp': a CPU's memory is"):
    program("host:mlp", "cpu")


def test_a_value_that_no_layer_has_is_refused():
  with pytest.raises(ValueError, match=r"'all' is unknown.*'host:' before it"):
    program("ctx+host:all", "tpu")
