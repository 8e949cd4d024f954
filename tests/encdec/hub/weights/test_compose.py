"""The parameters that training starts from."""

import jax
import numpy as np
from flax import traverse_util

from encdec.hub import (
  compose_config,
  encdec_config,
  initial_params,
  load_side_config,
)
from encdec.model import FlaxEncoderDecoderModule, init_params


def test_initial_params_draws_a_side_without_a_name(saved):
  config = encdec_config(
    compose_config(
      load_side_config(saved["bert"][0]), load_side_config(saved["gpt2-lm"][0])
    ),
    vocab_multiple=16,
  )
  module = FlaxEncoderDecoderModule(config)
  key = jax.random.key(2)
  placed = []

  def place(path, leaf):
    placed.append(path)
    return leaf

  params, report = initial_params(
    module, key, encoder=saved["bert"][0], decoder=None, place=place
  )
  drawn = jax.jit(init_params, static_argnums=0)(module, key)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    params["decoder"],
    drawn["decoder"],
  )
  assert set(placed) == set(traverse_util.flatten_dict(drawn, sep="/"))
  assert set(report.initialised) == set(report.expected)
  table = params["encoder"]["embeddings"]["tokens"]["embedding"]
  wanted = saved["bert"][1].embeddings.word_embeddings.weight.detach()
  np.testing.assert_array_equal(table[:37], wanted)
  assert table.shape == (48, 16) and not table[37:].any()
