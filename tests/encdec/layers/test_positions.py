"""Each kind of positions has its own table; none is taken for another."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from encdec.archs import ARCHS
from encdec.config import PositionKind
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.embedding import Embeddings
from encdec.layers.positions import sinusoids

_COMPUTE = ComputeConfig(jnp.float32, jnp.float32, "cpu")


def _config(kind: Any):
  bert = ARCHS["bert"]
  config = bert.stack_config(bert.PRESETS["tiny"], "encoder")
  config = dataclasses.replace(config)
  # Past the check of types, as a new member would be.
  object.__setattr__(config, "position_kind", kind)
  return config


def test_an_unknown_kind_is_no_sinusoid():
  with pytest.raises(AssertionError, match="rotary"):
    sinusoids(_config("rotary"))
  with pytest.raises(ValueError, match="bert learns its positions"):
    sinusoids(_config(PositionKind.LEARNED))
  layer = Embeddings(_config("rotary"), 1000, _COMPUTE)
  tokens = jnp.zeros((1, 2), jnp.int32)
  with pytest.raises(AssertionError, match="rotary"):
    layer.init(jax.random.key(0), tokens, tokens)
