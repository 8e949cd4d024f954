"""Dense layers, in either form of the kernel, are numpy's product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers.compute_config import ComputeConfig
from encdec.layers.dense import Dense


@pytest.mark.parametrize("rows", [(2, 3), (5, 40)])
@pytest.mark.parametrize(
  ("inner", "features"), [((6,), (4, 5)), ((2, 3), (7,)), ((6,), (9,))]
)
def test_a_transposed_kernel_gives_the_same(filled, rows, inner, features):
  compute = ComputeConfig(jnp.float32, jnp.float32, "cpu")
  layer = Dense(features, compute, 0.5, axes=len(inner))
  random = np.random.default_rng(1)
  states = random.normal(size=(*rows, *inner)).astype(np.float32)
  params = filled(layer, states)["params"]
  kernel = params["kernel"].reshape(6, -1)
  apply = jax.jit(layer.apply)
  expected = apply({"params": params}, states)
  found = apply(
    {"params": {"transposed": kernel.T, "bias": params["bias"]}}, states
  )
  assert found.shape == (*rows, *features)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  plain = np.tensordot(states, params["kernel"], axes=len(inner))
  bias = params["bias"].reshape((1,) * len(rows) + features)
  np.testing.assert_allclose(expected, plain + bias, rtol=1e-5, atol=1e-5)


def test_it_computes_in_its_dtype_and_stores_in_another(filled):
  layer = Dense((4,), ComputeConfig(jnp.bfloat16, jnp.float32, "cpu"), 0.5)
  states = jnp.linspace(-2.0, 3.0, 12).reshape(2, 6)
  params = filled(layer, states)
  assert params["params"]["kernel"].dtype == jnp.float32
  found = layer.apply(params, states)
  assert found.dtype == jnp.bfloat16
  exact = np.asarray(states) @ params["params"]["kernel"]
  exact = exact + params["params"]["bias"]
  np.testing.assert_allclose(np.float32(found), exact, rtol=0.05, atol=0.05)
  assert np.abs(np.float32(found) - exact).max() > 1e-4
