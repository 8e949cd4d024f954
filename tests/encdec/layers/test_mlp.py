"""The feed-forward layer against numpy, and its own dropout."""

import jax
import jax.numpy as jnp
import numpy as np

from encdec.layers.compute_config import ComputeConfig
from encdec.layers.mlp import Mlp

STATES = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
COMPUTE = ComputeConfig(jnp.float32, jnp.float32, "cpu")


def test_it_is_two_products_around_an_activation(side_config, filled):
  layer = Mlp(side_config(activation="relu"), COMPUTE)
  params = filled(layer, STATES)
  up, down = params["params"]["up"], params["params"]["down"]
  hidden = np.maximum(STATES @ up["kernel"] + up["bias"], 0.0)
  expected = hidden @ down["kernel"] + down["bias"]
  found = jax.jit(layer.apply)(params, STATES)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_its_dropout_needs_a_rate_and_a_key(side_config, filled):
  config = side_config(activation_dropout=0.5)
  layer, key = Mlp(config, COMPUTE), jax.random.key(0)
  params = filled(layer, STATES)
  apply = jax.jit(layer.apply)
  plain, dropped = apply(params, STATES), apply(params, STATES, key)
  assert np.abs(plain - dropped).max() > 1e-2
  undropped = Mlp(side_config(activation_dropout=0.0), COMPUTE)
  found = jax.jit(undropped.apply)(params, STATES, key)
  np.testing.assert_array_equal(found, plain)
