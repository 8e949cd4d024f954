"""Dense layers, in either form of the kernel, are numpy's product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.execution import Execution
from encdec.layers.dense import Dense


@pytest.mark.parametrize("rows", [(2, 3), (5, 40)])
@pytest.mark.parametrize(
  ("inner", "features"), [((6,), (4, 5)), ((2, 3), (7,)), ((6,), (9,))]
)
def test_a_transposed_kernel_gives_the_same(rows, inner, features):
  layer = Dense(
    features, Execution(jnp.float32, jnp.float32, "cpu"), 0.5, axes=len(inner)
  )
  states = jax.random.normal(jax.random.key(1), (*rows, *inner))
  params = layer.init(jax.random.key(0), states)["params"]
  params["bias"] = jax.random.normal(jax.random.key(2), features)
  kernel = params["kernel"].reshape(6, -1)
  expected = layer.apply({"params": params}, states)
  found = layer.apply(
    {"params": {"transposed": kernel.T, "bias": params["bias"]}}, states
  )
  assert found.shape == (*rows, *features)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  plain = jnp.tensordot(states, params["kernel"], axes=len(inner))
  bias = params["bias"].reshape((1,) * len(rows) + features)
  np.testing.assert_allclose(expected, plain + bias, rtol=1e-5, atol=1e-5)


def test_it_computes_in_its_dtype_and_stores_in_another(filled):
  layer = Dense((4,), Execution(jnp.bfloat16, jnp.float32, "cpu"), 0.5)
  states = jnp.linspace(-2.0, 3.0, 12).reshape(2, 6)
  params = filled(layer, states)
  assert params["params"]["kernel"].dtype == jnp.float32
  found = layer.apply(params, states)
  assert found.dtype == jnp.bfloat16
  exact = np.asarray(states) @ params["params"]["kernel"]
  exact = exact + params["params"]["bias"]
  np.testing.assert_allclose(np.float32(found), exact, rtol=0.05, atol=0.05)
  assert np.abs(np.float32(found) - exact).max() > 1e-4
