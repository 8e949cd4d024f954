"""A tiny side, and a tiny pair whose texts end here and there."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule, param_shapes


@pytest.fixture(scope="session")
def side_config():
  """`side_config(role, **changes)`: width 8, two heads of 4, 13 tokens."""

  def config(role="encoder", **changes):
    bert = ARCHS["bert"]
    hub = bert.PRESETS["tiny"] | {
      "vocab_size": 13,
      "hidden_size": 8,
      "num_attention_heads": 2,
      "intermediate_size": 12,
      "max_position_embeddings": 10,
      "initializer_range": 0.5,
    }
    return dataclasses.replace(bert.stack_config(hub, role), **changes)

  return config


@pytest.fixture(scope="session")
def filled():
  """`filled(layer, *inputs)`: random parameters, biases too, as numpy's."""

  def params(layer, *inputs, **options):
    init = functools.partial(layer.init, **options)
    shapes = jax.eval_shape(init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(
      lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes
    )

  return params


@pytest.fixture
def set_constant(monkeypatch):
  """Sets one that programs read when they are traced: they are traced anew."""

  def set_(module, name, value):
    monkeypatch.setattr(module, name, value)
    jax.clear_caches()

  yield set_
  monkeypatch.undo()
  jax.clear_caches()


def _module(rules=None) -> FlaxEncoderDecoderModule:
  hub = {
    **ARCHS["bert"].PRESETS["tiny"],
    "vocab_size": 120,
    "hidden_size": 32,
    "num_attention_heads": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 20,
    "initializer_range": 0.3,
  }
  config = EncDecConfig(
    ARCHS["bert"].stack_config(hub, "encoder"),
    ARCHS["bert"].stack_config(hub, "decoder"),
    vocab_multiple=128,
  )
  return FlaxEncoderDecoderModule(config, rules=rules)


@pytest.fixture(scope="session")
def tiny_module():
  """The module, of `rules`; 120 tokens, 20 positions, end token 2."""
  return _module


@pytest.fixture(scope="session")
def tiny_params(random_params) -> dict:
  """Its stored parameters, on the host; the end token is favoured."""
  params = random_params(param_shapes(_module()), 0.3)
  params["decoder"]["head"]["bias"][2] = 4.0
  return params
