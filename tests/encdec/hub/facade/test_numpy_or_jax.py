"""Numpy computes with numpy's arrays alone; JAX does where one is its own."""

import jax
import jax.numpy as jnp
import numpy as np

from encdec.hub.facade.numpy_or_jax import array_module


def test_one_array_of_jax_decides():
  assert array_module(np.ones(1), [1]) is np
  assert array_module(np.ones(1), jnp.ones(1)) is jnp
  # A tracer is JAX's too.
  jax.eval_shape(lambda x: x if array_module(x) is jnp else None, jnp.ones(1))
  found = []
  jax.eval_shape(lambda x: found.append(array_module(x)), jnp.ones(1))
  assert found == [jnp]
