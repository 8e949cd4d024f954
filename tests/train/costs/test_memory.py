"""The memory of a program, by what it holds."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from train.costs import hlo
from train.costs.memory import device_bytes, memory_of
from train.state import TrainState


def loss(layers, x):
  def body(c, layer):
    return jnp.tanh(c @ layer), None

  return jnp.sum(jax.lax.scan(body, x, layers)[0])


@pytest.mark.parametrize("layers", [4, 8])
def test_activations_are_what_the_backward_pass_reads(layers):
  given = [
    jax.ShapeDtypeStruct(shape, jnp.float32)
    for shape in ((layers, 64, 64), (256, 64))
  ]
  step = jax.jit(lambda w, x: w - jax.grad(loss)(w, x), donate_argnums=0)
  compiled = step.lower(*given).compile()
  found = memory_of(compiled, hlo.parse(compiled.as_text()), given[0])
  state, one = layers * 64 * 64 * 4, 256 * 64 * 4
  assert found.parameters == state
  assert found.optimizer == 0
  assert found.inputs == state + one
  # The new parameters are where the old ones were.
  assert found.donated == state and found.outputs == 0
  # A layer's input, and what the derivative of tanh reads.
  assert layers * one <= found.activations <= 3 * layers * one
  assert found.activations <= found.temporary
  assert found.total >= found.inputs + found.temporary


def test_activations_of_microbatches_are_those_of_one():
  def step(w, rows):
    def add(total, x):
      return total + jax.grad(loss)(w, x), None

    return jax.lax.scan(add, jnp.zeros_like(w), rows)[0]

  given = [
    jax.ShapeDtypeStruct(shape, jnp.float32)
    for shape in ((4, 64, 64), (2, 256, 64))
  ]
  compiled = jax.jit(step).lower(*given).compile()
  found = memory_of(compiled, hlo.parse(compiled.as_text()), given[0])
  one = 256 * 64 * 4
  assert 4 * one <= found.activations <= 3 * 4 * one


def test_averages_of_parameters_count_with_the_optimizer():
  shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
  state = TrainState(shape(), shape(5), {"mu": shape(5)}, {"ema": shape(5)})
  compiled = jax.jit(lambda state: state).lower(state).compile()
  found = memory_of(compiled, hlo.parse(compiled.as_text()), state)
  assert (found.parameters, found.optimizer) == (20, 40)


def test_a_device_holds_its_part():
  mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
  tree = {
    "split": jax.ShapeDtypeStruct(
      (8, 6), jnp.bfloat16, sharding=NamedSharding(mesh, P("a", "b"))
    ),
    "whole": jax.ShapeDtypeStruct(
      (5,), jnp.float32, sharding=NamedSharding(mesh, P())
    ),
    "here": jax.ShapeDtypeStruct((3,), jnp.int32),
  }
  assert device_bytes(tree) == 2 * 3 * 2 + 5 * 4 + 3 * 4
