"""Blocks: sublayers in the order of their norms, and cached steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.blocks import DecoderBlock, EncoderBlock, LayerInputs
from encdec.config import NormPosition
from encdec.layers import kv_cache
from encdec.layers.attention import Attention
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.mlp import Mlp
from encdec.layers.norm import layer_norm
from encdec.types import AttentionMask

COMPUTE = ComputeConfig(
  jnp.float32, jnp.float32, "cpu", attention_dropout="weights"
)
RNG = np.random.default_rng(1)
# A row of four tokens; the source has as many.
STATES, SOURCE = RNG.normal(size=(2, 1, 4, 8)).astype(np.float32)
LAYER = jnp.int32(1)


def _block(cls, config):
  return cls(config, COMPUTE)


def _attend(layer, states, source, divisor=None):
  keys_values = layer.keys_values(source)
  mask = AttentionMask()
  return layer.attend(states, keys_values, mask, divisor=divisor)[0]


@pytest.mark.parametrize(
  ("cls", "position", "by_layer"),
  [
    (EncoderBlock, NormPosition.PRE, False),
    (DecoderBlock, NormPosition.POST, True),
  ],
)
def test_sublayers_are_added_to_the_residual_stream(
  side_config, filled, cls, position, by_layer
):
  """The norms before the sublayers, or after the sums."""
  role = "encoder" if cls is EncoderBlock else "decoder"
  config = side_config(role, norm_position=position, scale_by_layer=by_layer)
  block = _block(cls, config)
  inputs = LayerInputs(AttentionMask(), SOURCE, AttentionMask())
  params = filled(block, STATES, LAYER, inputs)["params"]
  divisor = jnp.float32(2.0) if by_layer else None

  def expected(params, states, source):
    def add(name, states, sublayer):
      norm = functools.partial(
        layer_norm(config, COMPUTE).apply, {"params": params[f"{name}_norm"]}
      )
      if position == NormPosition.PRE:
        return states + sublayer(norm(states))
      return norm(states + sublayer(states))

    def attention(name, states, source=None):
      layer = Attention(config, COMPUTE)
      tree = {"params": params[name]}
      return add(
        name,
        states,
        lambda x: layer.apply(
          tree, x, x if source is None else source, divisor, method=_attend
        ),
      )

    states = attention("self_attention", states)
    if cls is DecoderBlock:
      states = attention("cross_attention", states, source)
    mlp = Mlp(config, COMPUTE)
    tree = {"params": params["mlp"]}
    return add("mlp", states, lambda x: mlp.apply(tree, x))

  found, outputs = jax.jit(block.apply)(
    {"params": params}, STATES, LAYER, inputs
  )
  np.testing.assert_allclose(
    found, jax.jit(expected)(params, STATES, SOURCE), rtol=1e-4, atol=1e-4
  )
  assert outputs.attention is None and outputs.cache is None


def test_steps_of_one_token_equal_a_row(side_config, filled):
  """With the source's keys and values as they are cached, too."""
  block = _block(DecoderBlock, side_config("decoder"))
  row = LayerInputs(AttentionMask(causal=True), SOURCE, AttentionMask())
  params = filled(block, STATES, LAYER, row)
  expected, _ = jax.jit(block.apply)(params, STATES, LAYER, row)
  cross = jax.jit(
    functools.partial(block.apply, method=DecoderBlock.cross_keys_values)
  )(params, SOURCE)
  zeros = jnp.zeros((1, 2, 4, 4))
  cache = kv_cache.as_cache(zeros, zeros, "cpu")

  @jax.jit
  def step(states, slot, cache):
    visible = (jnp.arange(4, dtype=jnp.int32) <= slot)[None, None, None]
    mask = AttentionMask(dense=visible)
    inputs = LayerInputs(mask, cross_mask=AttentionMask(), slot=slot)
    return block.apply(params, states, LAYER, inputs, cache=cache, cross=cross)

  for index in range(4):
    token = STATES[:, index : index + 1]
    found, outputs = step(token, np.int32(index), cache)
    cache = outputs.cache
    np.testing.assert_allclose(
      found, expected[:, index : index + 1], rtol=1e-4, atol=1e-4
    )
