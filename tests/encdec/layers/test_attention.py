"""The layer of attention: projections, scaling by layer, beams of their own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers.attention import Attention
from encdec.layers.compute_config import ComputeConfig
from encdec.types import AttentionMask

RNG = np.random.default_rng(1)


@pytest.fixture
def layer(side_config):
  """Four heads of two groups."""
  config = side_config(num_heads=4, num_kv_heads=2, attention_scale=0.3)
  return Attention(config, ComputeConfig(jnp.float32, jnp.float32, "cpu"))


def _call(layer, states, **options):
  keys_values = layer.keys_values(states)
  return layer.attend(states, keys_values, AttentionMask(), **options)[0]


@pytest.mark.parametrize("divisor", [None, 2.0])
def test_it_projects_attends_and_projects_back(layer, filled, divisor):
  states = RNG.normal(size=(1, 3, 8)).astype(np.float32)
  params = filled(layer, states, method=_call)["params"]

  def project(name):
    kernel, bias = params[name]["kernel"], params[name]["bias"]
    return np.einsum("btd,dhk->bthk", states, kernel) + bias

  q, k, v = project("query"), project("key"), project("value")
  k, v = np.repeat(k, 2, axis=2), np.repeat(v, 2, axis=2)
  logits = 0.3 * np.einsum("bthk,bshk->bhts", q, k) / (divisor or 1.0)
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  context = np.einsum("bhts,bshk->bthk", weights, v)
  expected = np.einsum("bthk,hkd->btd", context, params["out"]["kernel"])
  divided = None if divisor is None else jnp.float32(divisor)
  apply = jax.jit(functools.partial(layer.apply, method=_call))
  found = apply({"params": params}, states, divisor=divided)
  np.testing.assert_allclose(
    found, expected + params["out"]["bias"], rtol=1e-4, atol=1e-4
  )


def test_separate_beams_read_their_own_keys_alone(layer, filled):
  """As if each beam were a row; groups of heads come before beams."""
  states = jnp.asarray(RNG.normal(size=(1, 3, 8)), jnp.float32)
  params = filled(layer, states, method=_call)

  def by_beam(layer, keys, values):
    return layer.attend(
      states,
      # From a beam a row to `S, groups x beams`.
      tuple(
        part.transpose(1, 2, 0, 3).reshape(1, 5, 6, 4)
        for part in (keys, values)
      ),
      AttentionMask(),
      separate_beams=True,
    )[0]

  def by_row(layer, keys, values):
    rows = states.swapaxes(0, 1)
    return layer.attend(rows, (keys, values), AttentionMask())[0]

  keys, values = RNG.normal(size=(2, 3, 5, 2, 4)).astype(np.float32)
  found, expected = (
    jax.jit(functools.partial(layer.apply, method=method))(params, keys, values)
    for method in (by_beam, by_row)
  )
  np.testing.assert_allclose(found[0], expected[:, 0], rtol=1e-4, atol=1e-4)
  assert np.abs(found[0, 0] - found[0, 1]).max() > 1e-2
