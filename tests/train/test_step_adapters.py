"""The step with adapters: they alone move, the same on every mesh."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import adapters
from encdec.adapters import LoraConfig
from encdec.sharding import DEFAULT_RULES, leaf_path
from tests.train.sharded_cases import (
  CASES,
  OPTIM,
  WIDTH,
  batch_of,
  mesh_of,
  module_of,
  params_of,
)
from train import state, step
from train.optim.optimizer import make_optimizer
from train.setup.base_weights import checksums

ATTENTION = tuple(f"*/{name}" for name in ("query", "key", "value", "out"))
LORA = LoraConfig(
  2, 4.0, (*ATTENTION, "*/mlp/*"), True, ("*/cross_attention*",)
)
OPTIMIZER = make_optimizer(OPTIM, 20, WIDTH, LORA)
CASE = dataclasses.replace(CASES["off"], vocab_size=120)


def _flat(tree):
  return {
    leaf_path(path): np.array(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _trained(sizes):
  """Parameters before and after three steps, moments, losses, checksums."""
  module = module_of(CASE)
  base = params_of(module)
  module = module.clone(config=dataclasses.replace(module.config, lora=LORA))
  mesh = mesh_of(sizes)
  with jax.set_mesh(mesh):
    abstract = state.abstract_state(module, OPTIMIZER, mesh, DEFAULT_RULES)
    train = step.jit_train_step(
      module=module,
      optimizer=OPTIMIZER,
      config=step.StepConfig(seed=7),
      mesh=mesh,
      rules=DEFAULT_RULES,
      shardings=state.state_shardings(abstract),
    )
    now = state.create_state(
      module, OPTIMIZER, mesh, DEFAULT_RULES, jax.random.key(0), base
    )
    before, losses = _flat(now.params), []
    batch: Any = batch_of(CASE, 0)
    for _ in range(3):
      now, metrics = train(now, batch)
      losses.append(float(metrics["loss"]))
    sums = checksums(now.params, LORA, mesh)
  return before, _flat(now.params), now.opt_state, losses, sums


@pytest.fixture(scope="module")
def alone():
  return _trained((1, 1, 1))


def test_adapters_and_what_is_unfrozen_move_and_nothing_else(alone):
  before, after, opt_state, losses, _ = alone
  moved = {p for p in after if not np.array_equal(before[p], after[p])}
  saved = {path for path in after if not LORA.is_base(path)}
  # A key's bias adds the same to all of a query's logits.
  assert {p for p in saved - moved if not p.endswith("key/bias")} == set()
  assert moved <= saved
  assert {"lora_a", "lora_b", "dora_magnitude", "kernel"} <= {
    path.rpartition("/")[2] for path in moved
  }
  kernels = {path for path in moved if path.endswith("/kernel")}
  assert all("/cross_attention/" in path for path in kernels)
  assert losses[-1] < losses[0]
  numbers = sum(after[path].size for path in saved)
  moments = [leaf for leaf in jax.tree.leaves(opt_state) if leaf.ndim]
  assert sum(leaf.size for leaf in moments) == 2 * numbers
  assert numbers < sum(leaf.size for leaf in after.values()) / 2


def test_a_mesh_gives_what_one_device_does(alone):
  before, after, _, losses, sums = alone
  start, found, _, other, their_sums = _trained((2, 2, 2))
  assert sums == their_sums
  assert set(sums) == {path for path in after if LORA.is_base(path)}
  # Numbers of 32 bits, of which no two arrays here have the same.
  weights = [sums[path] for path in sums if path.endswith("/kernel")]
  assert len(set(weights)) == len(weights) and max(weights) < 2**32
  np.testing.assert_allclose(other, losses, rtol=1e-5)
  for path, leaf in before.items():
    np.testing.assert_allclose(start[path], leaf, rtol=1e-6, err_msg=path)
  for path in adapters.LEAVES:
    assert any(name.endswith(path) for name in found)
  for path, leaf in after.items():
    np.testing.assert_allclose(
      found[path], leaf, rtol=1e-3, atol=2e-4, err_msg=path
    )


def test_a_small_step_moves_adapters_of_a_bfloat16_base():
  """At a rate of 1e-4, which is less than half a bfloat16 number's spacing."""
  config = dataclasses.replace(module_of(CASE).config, lora=LORA)
  module = module_of(CASE).clone(config=config, param_dtype=jnp.bfloat16)
  optim = dataclasses.replace(OPTIM, lr=1e-4, schedule="constant")
  optimizer = make_optimizer(
    dataclasses.replace(optim, warmup_steps=0), 20, WIDTH, LORA
  )
  mesh = mesh_of((1, 1, 1))
  with jax.set_mesh(mesh):
    key = jax.random.key(0)
    now = state.create_state(module, optimizer, mesh, DEFAULT_RULES, key)
    trained, _ = optimizer.split(now.params)
    grads = jax.tree.map(
      lambda leaf: jnp.ones(leaf.shape, jnp.float32), trained
    )
    before = _flat(now.params)
    after = jax.jit(lambda now: step.update(now, grads, optimizer))(now)
  for path, leaf in _flat(after.params).items():
    assert leaf.dtype == before[path].dtype
    if path.rpartition("/")[2] in adapters.LEAVES:
      assert np.all(leaf != before[path]), path
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, now)
