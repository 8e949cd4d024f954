"""The step with groups and averages: what it holds, counts and keeps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.sharding import DEFAULT_RULES, leaf_path
from tests.train.test_step import OPTIM, QUICK, batch_of, module_of
from train import state, step
from train.mesh import MeshConfig, make_mesh
from train.optim.optimizer import make_optimizer

HELD, FROZEN = "encoder/layers/*", "decoder/head/transform/*"
SETTINGS = dataclasses.replace(
  OPTIM,
  schedule="constant",
  warmup_steps=0,
  groups=(
    f"{HELD}: frozen_steps=2",
    f"{FROZEN}: frozen=true",
    "*/cross_attention*: lr_scale=10",
  ),
  ema_decay=0.9,
)
OPTIMIZER = make_optimizer(SETTINGS, 20, 16)


def flat(tree):
  return {
    leaf_path(path): np.array(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def norm(grads, paths):
  return np.sqrt(sum(np.square(grads[path]).sum() for path in paths))


@pytest.fixture(scope="module")
def mesh():
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  with jax.set_mesh(mesh):
    yield mesh


@pytest.fixture(scope="module")
def states(mesh, random_params):
  """The states and metrics of four steps, the third not finite."""
  module = module_of()
  abstract = state.abstract_state(module, OPTIMIZER, mesh, DEFAULT_RULES)
  function = step.jit_train_step(
    module=module,
    optimizer=OPTIMIZER,
    config=step.StepConfig(seed=7),
    mesh=mesh,
    rules=DEFAULT_RULES,
    shardings=state.state_shardings(abstract),
  )
  train = function.lower(abstract, batch_of(0)).compile(compiler_options=QUICK)
  params = random_params(abstract.params, 0.3)
  now = state.create_state(
    module, OPTIMIZER, mesh, DEFAULT_RULES, jax.random.key(0), params
  )
  found = [(jax.tree.map(np.array, now), {})]
  for number in range(4):
    batch = batch_of(number)
    if number == 2:
      weights = batch["decoder_weights"].at[0, 0].set(jnp.inf)
      batch = batch | {"decoder_weights": weights}
    now, metrics = train(now, batch)
    found.append(
      (
        jax.tree.map(np.array, now),
        {name: float(value) for name, value in metrics.items()},
      )
    )
  return found


def of(path, prefix):
  return path.startswith(prefix.removesuffix("*"))


def test_groups_stay_as_long_as_they_are_frozen(states):
  before, *_ = (flat(now.params) for now, _ in states)
  for number, (now, _) in enumerate(states[1:], 1):
    for path, value in flat(now.params).items():
      # The third update was not made.
      held = of(path, HELD) and number <= 3
      if held or of(path, FROZEN) or "/pooler/" in path:
        np.testing.assert_array_equal(value, before[path])
  last = flat(states[4][0].params)
  moved = [path for path in last if (last[path] != before[path]).any()]
  assert any(of(path, HELD) for path in moved)
  assert any("cross_attention" in path for path in moved)
  names = flat(states[0][0].opt_state)
  assert not any(FROZEN.removesuffix("*") in name for name in names)


def test_frozen_gradients_count_in_no_norm(states):
  """By the first moments, which are a tenth of the first gradient."""
  first, metrics = states[1]
  moments = {
    name.partition("/mu/")[2]: value
    for name, value in flat(first.opt_state).items()
    if "/mu/" in name
  }
  held = [path for path in moments if of(path, HELD)]
  assert held and not any(moments[path].any() for path in held)
  # Clipped to 1.0: the norm of what is not frozen was what clipping saw.
  assert metrics["grad_norm"] > 1.0
  assert norm(moments, moments) == pytest.approx(0.1, rel=1e-5)
  thawed = {
    name.partition("/mu/")[2]: value
    for name, value in flat(states[4][0].opt_state).items()
    if "/mu/" in name
  }
  assert all(thawed[path].any() for path in held if "key/bias" not in path)


def test_each_group_tells_its_rate(states):
  rates = [
    {name: value for name, value in metrics.items() if name.startswith("lr")}
    for _, metrics in states[1:]
  ]
  assert rates[0] == pytest.approx(
    {"lr": 0.01, f"lr/{HELD}": 0.0, "lr/*/cross_attention*": 0.1}
  )
  assert rates[3][f"lr/{HELD}"] == pytest.approx(0.01)


def test_averages_follow_and_skip_a_step_that_is_not_finite(states):
  trained = flat(states[0][0].ema)
  assert "encoder/pooler/kernel" not in trained
  assert not any(of(path, FROZEN) for path in trained)
  decays = (0.1, 2 / 11, None, 3 / 12)
  for (old, _), (new, metrics), decay in zip(
    states[:-1], states[1:], decays, strict=True
  ):
    before, after, params = flat(old.ema), flat(new.ema), flat(new.params)
    assert metrics["finite"] == float(decay is not None)
    for path, value in after.items():
      if decay is None:
        np.testing.assert_array_equal(value, before[path])
        continue
      expected = decay * before[path] + (1 - decay) * params[path]
      np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)
