"""Sharding changes nothing: every mesh trains as one device does."""

import contextlib
import dataclasses
import functools
import os
import random
import re
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding, PartitionSpec

from encdec import sharding
from encdec.sharding import DEFAULT_RULES
from tests.train.sharded_cases import (
  CASES,
  MESHES,
  MIXED,
  ONE,
  OPTIMIZER,
  ROWS,
  SOURCE,
  TARGET,
  WIDTH,
  Case,
  batch_of,
  mesh_of,
  module_of,
  params_of,
)
from train import state, step
from train.mesh import batch_sharding

REMATERIALISED = "Involuntary full rematerialization"


@contextlib.contextmanager
def compiler_stderr():
  """What the compiler writes to fd 2; a cached program would write nothing."""
  jax.config.update("jax_enable_compilation_cache", False)
  compilation_cache.reset_cache()
  saved, lines = os.dup(2), []
  with tempfile.TemporaryFile() as file:
    os.dup2(file.fileno(), 2)
    try:
      yield lines
    finally:
      os.dup2(saved, 2)
      os.close(saved)
      file.seek(0)
      lines.append(file.read().decode())
      jax.config.update("jax_enable_compilation_cache", True)
      compilation_cache.reset_cache()


@dataclasses.dataclass
class Run:
  """What one mesh gave."""

  mesh: jax.sharding.Mesh
  losses: np.ndarray
  first: state.TrainState
  last: state.TrainState
  program: str
  stderr: str
  aliased_bytes: int
  train: Any
  create: Any


def run(case: Case, sizes: tuple[int, int, int]) -> Run:
  mesh, module = mesh_of(sizes), module_of(case)
  abstract = state.abstract_state(module, OPTIMIZER, mesh, DEFAULT_RULES)
  place = batch_sharding(mesh, DEFAULT_RULES)
  batches = [jax.device_put(batch_of(case, n), place) for n in range(5)]
  function = step.jit_train_step(
    module=module,
    optimizer=OPTIMIZER,
    config=step.StepConfig(
      seed=5,
      accumulate_steps=case.accumulate_steps,
      loss=case.loss,
      loss_chunks=case.loss_chunks,
    ),
    mesh=mesh,
    rules=DEFAULT_RULES,
    shardings=state.state_shardings(abstract),
  )

  def create() -> state.TrainState:
    return state.create_state(
      module,
      OPTIMIZER,
      mesh,
      DEFAULT_RULES,
      jax.random.key(0),
      params_of(module),
    )

  with jax.set_mesh(mesh):
    with compiler_stderr() as stderr:
      train = function.lower(abstract, batches[0]).compile()
    first = now = create()
    losses = []
    for batch in batches:
      now, metrics = train(now, batch)
      losses.append(float(metrics["loss"]))
  return Run(
    mesh,
    np.array(losses),
    first,
    now,
    train.as_text(),
    stderr[0],
    train.memory_analysis().alias_size_in_bytes,
    train,
    create,
  )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  """Gives a test every case on every mesh that the counts ask for."""
  if "name" not in metafunc.fixturenames:
    return
  full = metafunc.config.option.full
  # The tests of a run draw alike, since a run costs a compilation.
  rng = random.Random(metafunc.config.option.seed)
  drawn, dropout = rng.choice(MESHES[:-1]), rng.choice(("values", "weights"))
  names = list(CASES) if full else ["off", dropout]
  if "sizes" not in metafunc.fixturenames:
    random_bits = metafunc.function is test_random_bits_have_local_shapes
    metafunc.parametrize("name", names[1:] if random_bits else names)
    return
  metafunc.parametrize(
    ("name", "sizes"),
    [
      pytest.param(name, sizes, id=f"{name}-{'x'.join(map(str, sizes))}")
      for name in names
      for sizes in (MESHES if full else CASES[name].meshes)
      if full or sizes in (drawn, MIXED)
    ],
  )


@pytest.fixture(scope="module")
def runs():
  """`runs(case, sizes)`, each compiled once."""
  return functools.cache(lambda name, sizes: run(CASES[name], sizes))


def test_one_device_trains(runs, name):
  losses = runs(name, ONE).losses
  assert len(set(losses)) == 5 and np.all(np.isfinite(losses))


def test_a_mesh_gives_the_losses_of_one_device(runs, name, sizes):
  error = np.abs(runs(name, sizes).losses / runs(name, ONE).losses - 1)
  assert error.max() <= 1e-5, (
    f"{name} on data x fsdp x tensor = {sizes}: losses differ from one "
    f"device's by {error}"
  )


def test_dropout_matters_and_is_a_function_of_the_step(runs):
  one = runs("weights", ONE)
  error = np.abs(one.losses / runs("off", ONE).losses - 1)
  assert error.min() > 1e-4
  batch = jax.tree.map(jnp.asarray, batch_of(CASES["weights"], 0))
  with jax.set_mesh(one.mesh):

    def loss(number: int) -> float:
      now = one.create().replace(step=jnp.asarray(number, jnp.int32))
      return float(one.train(now, batch)[1]["loss"])

    assert loss(0) == one.losses[0]
    assert abs(loss(1) / one.losses[0] - 1) > 1e-4


def test_parameters_and_moments_carry_the_tables_specs(runs, name, sizes):
  last = runs(name, sizes).last
  specs = sharding.param_specs(
    last.params, DEFAULT_RULES, last.step.sharding.mesh
  )
  _assert_specs(last.params, specs)
  adam = next(s for s in last.opt_state if hasattr(s, "mu"))
  trained, _ = OPTIMIZER.split(specs)
  _assert_specs(adam.mu, trained)
  _assert_specs(adam.nu, trained)


def _assert_specs(tree, specs):
  def check(path, leaf, expected: NamedSharding):
    where = sharding.leaf_path(path)
    assert leaf.sharding == expected, f"{where}: {leaf.sharding}"

  jax.tree_util.tree_map_with_path(check, tree, specs)


def test_a_spec_splits_what_it_names(runs):
  last = runs("off", MIXED).last
  kernel = last.params["decoder"]["layers"]["mlp"]["up"]["kernel"]
  assert kernel.sharding.spec == PartitionSpec(None, ("fsdp",), ("tensor",))
  assert {s.data.shape for s in kernel.addressable_shards} == {(2, 8, 12)}
  table = last.params["decoder"]["embeddings"]["tokens"]["embedding"]
  assert {s.data.shape for s in table.addressable_shards} == {(32, 16)}


def test_nothing_is_rematerialised_in_full(runs, name, sizes):
  assert REMATERIALISED not in runs(name, sizes).stderr


def test_the_state_is_donated(runs):
  done = runs("off", MIXED)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(done.first))
  local = sum(
    leaf.addressable_shards[0].data.nbytes
    for leaf in jax.tree.leaves(done.last)
  )
  assert done.aliased_bytes >= local


def test_random_bits_have_local_shapes(runs, name):
  rows = ROWS // CASES[name].accumulate_steps
  # Two draws out of a word: half the last axis.
  drawn = {(rows, TARGET, WIDTH // 2), (rows, SOURCE, WIDTH // 2)}
  if name == "weights":
    drawn |= {(rows, 8, TARGET, SOURCE // 2), (rows, 8, SOURCE, SOURCE // 2)}
  else:
    drawn |= {(rows, 8, SOURCE // 2)}
  whole = _words(runs(name, ONE).program)
  split = _words(runs(name, MIXED).program)
  assert drawn <= whole
  assert not drawn & split
  # Four shards of the batch, and two of the heads where there are heads.
  local = {
    (shape[0] // 4, *(n // 2 if n == 8 else n for n in shape[1:-1]), shape[-1])
    for shape in drawn
  }
  assert local <= split


def _words(program: str) -> set[tuple[int, ...]]:
  """Shapes of the arrays of 32-bit words in a compiled program."""
  return {
    tuple(map(int, dims.split(",")))
    for dims in re.findall(r"\bu32\[([\d,]+)\]", program)
  }


def test_the_compiler_is_heard():
  """The control: a table split over both its axes is rematerialised."""
  mesh = mesh_of(MIXED)
  table = jax.ShapeDtypeStruct(
    (64, 16),
    jnp.float32,
    sharding=NamedSharding(mesh, PartitionSpec("tensor", "fsdp")),
  )
  ids = jax.ShapeDtypeStruct(
    (16, 8),
    jnp.int32,
    sharding=NamedSharding(mesh, PartitionSpec(("data", "fsdp"))),
  )

  @jax.jit
  def lookup(table, ids):
    states = jnp.take(table, ids, axis=0)
    return jax.lax.with_sharding_constraint(
      states, NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    )

  with compiler_stderr() as lines:
    lookup.lower(table, ids).compile()
  assert REMATERIALISED in lines[0]
