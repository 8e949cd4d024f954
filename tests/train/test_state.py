"""A fresh state is the same on every mesh."""

import jax
import numpy as np

from encdec.model import (
  init_params,
)
from encdec.sharding import DEFAULT_RULES
from tests.train.sharded_cases import (
  CASES,
  MIXED,
  OPTIMIZER,
  mesh_of,
  module_of,
)
from train import state


def test_a_fresh_state_is_the_same_on_every_mesh():
  module, key, mesh = module_of(CASES["off"]), jax.random.key(3), mesh_of(MIXED)
  with jax.set_mesh(mesh):
    made = state.create_state(module, OPTIMIZER, mesh, DEFAULT_RULES, key)
  # A few leaves, since compiling what draws them all takes long.
  few = lambda params: (
    params["encoder"]["embeddings"]["tokens"]["embedding"],
    params["decoder"]["layers"]["mlp"]["up"]["kernel"],
    params["decoder"]["layers"]["self_attention"]["query"]["kernel"],
  )
  expected = jax.jit(lambda key: few(init_params(module, key)))(key)
  for leaf, one in zip(few(made.params), expected, strict=True):
    np.testing.assert_allclose(
      np.asarray(leaf), np.asarray(one), rtol=1e-6, atol=1e-9
    )
    assert np.std(one) > 1e-3
  abstract = state.abstract_state(module, OPTIMIZER, mesh, DEFAULT_RULES)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, made)
  assert shardings == state.state_shardings(abstract)
