"""Layer normalisation against numpy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np

from encdec.layers.compute_config import ComputeConfig
from encdec.layers.norm import layer_norm

# Far from 0: E[x^2] - E[x]^2 would be off.
STATES = 300 + np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)


F32 = ComputeConfig(jnp.float32, jnp.float32, "cpu")


def _expected(states, params, epsilon):
  states = np.asarray(states, np.float64)
  states = states - states.mean(-1, keepdims=True)
  variance = (states**2).mean(-1, keepdims=True)
  return states / np.sqrt(variance + epsilon) * params["scale"] + params["bias"]


def test_variance_is_that_of_the_centred_states(side_config, filled):
  for epsilon in (1e-12, 0.5):
    norm = layer_norm(side_config(norm_epsilon=epsilon), F32)
    params = filled(norm, STATES)
    expected = _expected(STATES, params["params"], epsilon)
    found = jax.jit(norm.apply)(params, STATES)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_statistics_are_float32_in_bfloat16(side_config, filled):
  """One rounding, at the end; promotion is not left to the caller."""
  norm = layer_norm(
    side_config(), ComputeConfig(jnp.bfloat16, jnp.float32, "cpu")
  )
  states = jnp.asarray(STATES - 299, jnp.bfloat16)
  params = filled(norm, states)
  expected = _expected(states, params["params"], 1e-12)
  with jax.numpy_dtype_promotion("strict"):
    found = jax.jit(norm.apply)(params, states)
  assert found.dtype == jnp.bfloat16
  rounded = jnp.asarray(expected, jnp.float32).astype(jnp.bfloat16)
  np.testing.assert_array_equal(np.float32(found), np.float32(rounded))
