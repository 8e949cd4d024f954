"""A layer that is stored once and run many times (ALBERT)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.generation.decode_params import unstack
from encdec.model import FlaxEncoderDecoderModule, init_params, param_shapes

SMALL = {
  "vocab_size": 37,
  "hidden_size": 32,
  "intermediate_size": 48,
  "initializer_range": 0.2,
}


def _config(**changes) -> EncDecConfig:
  albert, bert = ARCHS["albert"], ARCHS["bert"]
  decoder = bert.PRESETS["tiny"] | SMALL | {"num_hidden_layers": 1}
  return EncDecConfig(
    albert.stack_config(albert.PRESETS["tiny"] | SMALL | changes, "encoder"),
    bert.stack_config(decoder, "decoder"),
  )


@pytest.fixture(scope="module")
def shared():
  """The module and its parameters."""
  module = FlaxEncoderDecoderModule(_config())
  return module, init_params(module, jax.random.key(0))


def _apart(module, params):
  """The same function with a copy of the parameters for each layer."""
  encoder = module.config.encoder
  count = encoder.num_layers
  config = dataclasses.replace(
    module.config, encoder=dataclasses.replace(encoder, stored_layers=count)
  )
  layers = jax.tree.map(
    lambda leaf: jnp.repeat(leaf, count, axis=0), params["encoder"]["layers"]
  )
  side = {**params["encoder"], "layers": layers}
  return module.clone(config=config), {**params, "encoder": side}


@functools.partial(jax.jit, static_argnames="module")
def _loss_and_grad(module, params):
  rng = np.random.default_rng(0)
  tokens = jnp.asarray(rng.integers(1, 37, (2, 7)), jnp.int32)
  ones, positions = jnp.ones_like(tokens), jnp.arange(7, dtype=jnp.int32)
  positions = jnp.broadcast_to(positions, tokens.shape)

  def loss(params):
    out = module.apply(
      {"params": params},
      *(tokens, ones, positions) * 2,
    )
    return jnp.square(out.logits).mean()

  return jax.value_and_grad(loss)(params)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
  "options", [{}, {"remat": "full"}, {"remat": "qkv+ctx", "scan_unroll": 2}]
)
def test_gradients_of_every_use_add_up(shared, options):
  module, params = shared
  expected, apart = _loss_and_grad(*_apart(module, params))
  loss, grads = _loss_and_grad(module.clone(**options), params)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  added = jax.tree.map(
    lambda leaf: leaf.sum(0, keepdims=True), apart["encoder"]["layers"]
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    grads["encoder"]["layers"],
    added,
  )
  one = apart["encoder"]["layers"]["mlp"]["up"]["kernel"][0]
  assert np.abs(one - added["mlp"]["up"]["kernel"][0]).max() > 1e-3


def test_looped_equals_scanned(shared):
  module, params = shared
  scanned, _ = _loss_and_grad(module, params)
  form = unstack(params, module)
  assert len(form["encoder"]["layers"]) == 1, "a shared layer is held once"
  looped, _ = _loss_and_grad(module, form)
  np.testing.assert_allclose(looped, scanned, rtol=1e-6)
  fewer = dataclasses.replace(module.config.encoder, num_layers=2)
  config = dataclasses.replace(module.config, encoder=fewer)
  other, _ = _loss_and_grad(module.clone(config=config), form)
  assert abs(other - scanned) > 1e-4


@pytest.mark.parametrize("form", ["stored", "unstacked", "repeated"])
def test_more_layers_copy_no_parameters(form):
  """Temporary memory grows by no layer, unless the program repeats them."""

  def temporary(layers: int) -> tuple[int, int]:
    module = FlaxEncoderDecoderModule(_config(num_hidden_layers=layers))
    shapes = param_shapes(module)
    layer = jax.tree.leaves(shapes["encoder"]["layers"])
    row = jax.ShapeDtypeStruct((1, 2), jnp.int32)

    def encode(params, tokens):
      run = module
      if form == "repeated":
        run, params = _apart(module, params)
      ones = jnp.ones_like(tokens)
      return run.apply(
        {"params": params}, tokens, ones, ones, method="encode"
      ).states

    params = shapes
    if form == "unstacked":
      params = jax.eval_shape(lambda tree: unstack(tree, module), shapes)
    memory = jax.jit(encode).lower(params, row).compile().memory_analysis()
    return memory.temp_size_in_bytes, sum(4 * leaf.size for leaf in layer)

  few, layer = temporary(2)
  many, _ = temporary(6)
  assert (many - few > layer / 2) == (form == "repeated")
