"""Sharding the sequence changes nothing: neither losses nor dropout's bits."""

import dataclasses

import jax
import numpy as np
import pytest

from encdec import sharding
from encdec.sharding import DEFAULT_RULES
from tests.train.sharded_cases import (
  CASES,
  MIXED,
  batch_of,
  mesh_of,
  module_of,
  params_of,
)
from train import losses
from train.mesh import batch_sharding

SEQUENCE = sharding.Rules.from_mapping(
  {**dict(DEFAULT_RULES.table), "sequence": ("tensor",)}
)


@pytest.mark.sample(1)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_split_sequence_changes_nothing(dropout):
  """Nor the bits of dropout; and activations are split."""
  case = dataclasses.replace(CASES["off"], dropout=dropout)
  mesh = mesh_of(MIXED)
  batch = batch_of(case, 0)
  # An even number of target tokens: the tensor axis divides it.
  batch = {
    name: rows[:, :-1] if name.startswith("decoder") else rows
    for name, rows in batch.items()
  }
  results, kept = [], []
  for rules in (DEFAULT_RULES, SEQUENCE):
    module = module_of(case).clone(rules=rules)

    def loss(params, batch, module=module):
      total, weight = losses.pair_loss(
        params,
        batch,
        module=module,
        dropout_key=jax.random.key(3) if dropout else None,
        config=losses.LossConfig(),
        chunks=1,
      )
      return total / weight

    shardings = sharding.param_specs(params_of(module), rules, mesh)
    with jax.set_mesh(mesh):
      params = jax.device_put(params_of(module), shardings)
      rows = jax.device_put(batch, batch_sharding(mesh, rules))
      compiled = jax.jit(jax.value_and_grad(loss)).lower(params, rows).compile()
      value, grads = compiled(params, rows)
    results.append((value, grads))
    kept.append(compiled.memory_analysis().temp_size_in_bytes)
  (one, one_grads), (other, other_grads) = results
  np.testing.assert_allclose(one, other, rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
    one_grads,
    other_grads,
  )
  assert kept[1] < kept[0]


def test_a_sequence_that_does_not_divide_is_refused():
  case, mesh = CASES["off"], mesh_of(MIXED)
  module = module_of(case).clone(rules=SEQUENCE)
  with (
    jax.set_mesh(mesh),
    pytest.raises(ValueError, match=r"'sequence' has size 7, which tensor=2"),
  ):
    jax.eval_shape(
      lambda params, batch: losses.decoder_states(params, batch, module, None)[
        0
      ],
      params_of(module),
      batch_of(case, 0),
    )
