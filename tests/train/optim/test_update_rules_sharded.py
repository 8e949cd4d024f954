"""Sharding changes no update: a mesh trains as one device does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from encdec.sharding import DEFAULT_RULES, leaf_path
from tests.train.sharded_cases import (
  CASES,
  MIXED,
  ONE,
  OPTIM,
  WIDTH,
  batch_of,
  mesh_of,
  module_of,
  params_of,
)
from train import state, step
from train.mesh import batch_sharding
from train.optim import update_rules
from train.optim.optimizer import make_optimizer
from train.optim.settings import OPTIMIZERS

CASE = CASES["off"]
# AdamW has the tests of the step.
NAMES = [name for name in OPTIMIZERS if name != "adamw"]

GROUPS = ("encoder/*: frozen_steps=2", "*/cross_attention*: lr_scale=3")


@pytest.fixture(autouse=True)
def small_matrices_are_factored(monkeypatch):
  monkeypatch.setattr(update_rules, "FACTORED_FROM", 16)


def optimizer_of(name, groups=()):
  decay = 0.01 if "weight_decay" in OPTIMIZERS[name] else 0.0
  config = dataclasses.replace(
    OPTIM, name=name, weight_decay=decay, groups=groups
  )
  return make_optimizer(config, 20, WIDTH)


def losses(name, sizes):
  mesh, module, optimizer = (
    mesh_of(sizes),
    module_of(CASE),
    optimizer_of(name, GROUPS),
  )
  abstract = state.abstract_state(module, optimizer, mesh, DEFAULT_RULES)
  train = step.jit_train_step(
    module=module,
    optimizer=optimizer,
    config=step.StepConfig(seed=5),
    mesh=mesh,
    rules=DEFAULT_RULES,
    shardings=state.state_shardings(abstract),
  )
  place = batch_sharding(mesh, DEFAULT_RULES)
  found = []
  with jax.set_mesh(mesh):
    now = state.create_state(
      module,
      optimizer,
      mesh,
      DEFAULT_RULES,
      jax.random.key(0),
      params_of(module),
    )
    for number in range(5):
      now, metrics = train(now, jax.device_put(batch_of(CASE, number), place))
      found.append(float(metrics["loss"]))
  return np.array(found)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", NAMES)
def test_a_mesh_gives_the_losses_of_one_device(name):
  whole, split = losses(name, ONE), losses(name, MIXED)
  assert len(set(whole)) == 5 and np.all(np.isfinite(whole))
  error = np.abs(split / whole - 1)
  assert error.max() <= 1e-5, f"{name}: losses differ by {error}"


@pytest.mark.parametrize("name", NAMES)
def test_what_an_optimizer_keeps_lies_as_its_parameters_do(name):
  mesh, module = mesh_of(MIXED), module_of(CASE)
  abstract = state.abstract_state(
    module, optimizer_of(name), mesh, DEFAULT_RULES
  )
  places = {
    leaf_path(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract.opt_state)
  }
  query = "decoder/layers/self_attention/query/kernel"
  of_query = {
    path.removesuffix(f"/{query}").rpartition("/")[2]: leaf.sharding.spec
    for path, leaf in places.items()
    if path.endswith(query)
  }
  own = abstract.params["decoder"]["layers"]["self_attention"]["query"][
    "kernel"
  ].sharding.spec
  if name == "adafactor":
    # [L, D, H, K] is L of [D, H*K]: D by fsdp, H*K as its heads by tensor.
    assert of_query["v_row"] == P(None, ("fsdp",))
    assert of_query["v_col"] == P(None, ("tensor",))
    assert of_query["v"] == P(None, None)
  else:
    moments = {"lion": 1, "muon": 1, "sgd": 1, "lamb": 2, "adam": 2}[name]
    assert list(of_query.values()) == [own] * moments


def test_a_statistic_of_unknown_place_is_refused():
  other = optax.GradientTransformation(
    lambda params: {"covariance": jnp.zeros((5, 5))},
    lambda updates, state, params: (updates, state),
  )
  optimizer = dataclasses.replace(optimizer_of("sgd"), tx=other)
  with pytest.raises(ValueError, match=r"'covariance' .*\(5, 5\).*optim.name"):
    state.abstract_state(
      module_of(CASE), optimizer, mesh_of(MIXED), DEFAULT_RULES
    )
