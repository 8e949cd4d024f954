"""The head against numpy: tied or not, in either form, padding rows hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config import HeadKind
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.head import Head

RNG = np.random.default_rng(0)
# Of 13 tokens; rows from there on are padding.
TABLE = RNG.normal(size=(16, 8)).astype(np.float32)
STATES = RNG.normal(size=(2, 3, 8)).astype(np.float32)


def _head(config, dtype=jnp.float32):
  return Head(config, 16, ComputeConfig(dtype, jnp.float32, "cpu"))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", ["tied", "kernel", "transposed"])
def test_a_linear_head_is_one_product(side_config, filled, form, bias):
  head = _head(
    side_config(
      "decoder", head=HeadKind.LINEAR, head_bias=bias, tied_head=form == "tied"
    )
  )
  params = dict(filled(head, STATES, TABLE).get("params", {}))
  matrix = TABLE.T if form == "tied" else params["kernel"]
  expected = STATES @ matrix + params.get("bias", 0.0)
  if form == "transposed":
    params["transposed"] = params.pop("kernel").T
  logits = jax.jit(head.apply)({"params": params}, STATES, TABLE)
  np.testing.assert_allclose(
    logits[..., :13], expected[..., :13], rtol=1e-4, atol=1e-4
  )
  assert (logits[..., 13:] == jnp.finfo(jnp.float32).min).all()


def test_a_transform_comes_before_the_product(side_config, filled):
  config = side_config("decoder", head_activation="relu", norm_epsilon=0.01)
  assert config.head == HeadKind.TRANSFORM and config.tied_head
  head = _head(config)
  params = filled(head, STATES, TABLE)
  p = params["params"]
  hidden = STATES @ p["transform"]["kernel"]
  hidden = np.maximum(hidden + p["transform"]["bias"], 0.0)
  hidden = hidden - hidden.mean(-1, keepdims=True)
  hidden = hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + 0.01)
  hidden = hidden * p["norm"]["scale"] + p["norm"]["bias"]
  expected = (hidden @ TABLE.T + p["bias"])[..., :13]
  found = jax.jit(head.apply)(params, STATES, TABLE)[..., :13]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_logits_are_float32_in_bfloat16(side_config, filled):
  """Sums of products of bfloat16 numbers, that are not rounded themselves."""
  head = _head(side_config("decoder", head=HeadKind.LINEAR), jnp.bfloat16)
  params = filled(head, STATES, TABLE)
  logits = jax.jit(head.apply)(params, STATES, TABLE)[..., :13]
  assert logits.dtype == jnp.float32
  states, table = (
    np.float64(array.astype(jnp.bfloat16)) for array in (STATES, TABLE)
  )
  expected = (states @ table.T + params["params"]["bias"])[..., :13]
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
  unrounded = (STATES @ TABLE.T + params["params"]["bias"])[..., :13]
  assert np.abs(logits - unrounded).max() > 1e-3


def test_padding_rows_of_a_kernel_are_zero(side_config):
  head = _head(side_config("decoder", tied_head=False))
  params = jax.jit(head.init)(jax.random.key(0), STATES, TABLE)["params"]
  kernel = params["kernel"]
  assert kernel[:, :13].all() and not kernel[:, 13:].any()


def test_a_side_without_a_head_has_no_logits(side_config):
  config = side_config("decoder", head=HeadKind.NONE, head_bias=False)
  with pytest.raises(ValueError, match="bert has no head"):
    jax.jit(_head(config).apply)({"params": {}}, STATES, TABLE)
