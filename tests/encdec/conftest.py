"""A tiny pair whose texts end here and there, for the tests of searches."""

import jax
import numpy as np
import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule, init_params


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
def tiny_params() -> dict:
  """Its stored parameters, on the host; the end token is favoured."""
  params = init_params(_module(), jax.random.key(0))
  bias = params["decoder"]["head"]["bias"]
  params["decoder"]["head"]["bias"] = bias.at[2].set(4.0)
  return jax.tree.map(np.asarray, params)
