"""Groups: their own rates and settings, frozen ones, and those that thaw."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from encdec.sharding import leaf_path
from tests.train.optim.bases import BASE, tree_of
from train.optim.optimizer import check_groups, make_optimizer, merge

LAYERS, STEPS = "encoder/layers/*", 5


def draw(rng):
  return tree_of(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32))


def flat(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {leaf_path(path): np.asarray(leaf) for path, leaf in leaves}


def train(config, params, gradients):
  """The parameters after each update, as the step makes it."""
  optimizer = make_optimizer(config, 100, 64)
  check_groups(optimizer, params)
  trained, frozen = optimizer.split(params)
  state, found = optimizer.tx.init(trained), []

  @jax.jit
  def update(step, grads, state, trained):
    grads = optimizer.hold(grads, step)
    updates, state = optimizer.tx.update(grads, state, trained)
    return optax.apply_updates(trained, updates), state

  for step, grads in enumerate(gradients):
    grads, _ = optimizer.split(grads)
    trained, state = update(jnp.int32(step), grads, state, trained)
    found.append(flat(merge(trained, frozen)))
  return found


@pytest.fixture
def drawn(seed):
  rng = np.random.default_rng(seed)
  return draw(rng), [draw(rng) for _ in range(STEPS)]


@functools.cache
def bertsum():
  config = dataclasses.replace(
    BASE,
    schedule="noam_unscaled",
    groups=(
      "encoder/*: lr=0.002, warmup_steps=20000",
      "decoder/*: lr=0.2, warmup_steps=10000",
    ),
  )
  return make_optimizer(config, 200_000, 768)


@pytest.mark.parametrize("step", [1, 10_000, 20_000, 200_000])
def test_bertsums_optimizers_are_two_lines(step):
  """Liu and Lapata 2019, section 4."""
  found = bertsum().learning_rates(jnp.int32(step - 1))
  for side, lr, warmup in (
    ("encoder", 0.002, 20_000),
    ("decoder", 0.2, 10_000),
  ):
    published = lr * min(step**-0.5, step * warmup**-1.5)
    assert float(found[f"lr/{side}/*"]) == pytest.approx(published, rel=1e-6)


def test_each_group_is_an_optimizer_of_its_own(drawn):
  params, gradients = drawn
  base = dataclasses.replace(BASE, weight_decay=0.1)
  own = "lr_scale=0.1, weight_decay=0.5, b1=0.3, b2=0.5, eps=0.01"
  grouped = dataclasses.replace(base, groups=(f"{LAYERS}: {own}",))
  alone = dataclasses.replace(
    BASE, lr=0.1 * BASE.lr, weight_decay=0.5, b1=0.3, b2=0.5, eps=0.01
  )
  [*_, found] = train(grouped, params, gradients)
  [*_, rest] = train(base, params, gradients)
  [*_, layers] = train(alone, params, gradients)
  for path, value in found.items():
    in_group = path.startswith("encoder/layers/")
    expected, other = (layers, rest) if in_group else (rest, layers)
    np.testing.assert_allclose(value, expected[path], rtol=1e-5, atol=1e-6)
    if "pooler" not in path:
      assert np.abs(value - other[path]).max() > 1e-3


def test_frozen_parameters_stay_and_have_no_moments(drawn):
  params, gradients = drawn
  config = dataclasses.replace(BASE, groups=(f"{LAYERS}: frozen=true",))
  optimizer = make_optimizer(config, 100, 64)
  trained, frozen = optimizer.split(params)
  assert set(frozen["encoder"]) == {"layers", "pooler"}
  assert "layers" not in str(jax.tree.structure(optimizer.tx.init(trained)))
  # Without a group that is trained, the state is what it is without groups.
  plain = make_optimizer(BASE, 100, 64).tx.init(trained)
  assert jax.tree.structure(plain) == jax.tree.structure(
    optimizer.tx.init(trained)
  )
  before = flat(params)
  [*_, after] = train(config, params, gradients)
  for path, value in after.items():
    same = path.startswith(("encoder/layers/", "encoder/pooler/"))
    assert np.array_equal(value, before[path]) == same


@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
def test_moments_of_a_thawed_group_begin_when_it_does(drawn, name):
  """Its updates are those of a run that began there, at a later rate."""
  params, gradients = drawn
  config = dataclasses.replace(BASE, name=name, lr=0.01, weight_decay=0.1)
  held = dataclasses.replace(config, groups=(f"{LAYERS}: frozen_steps=2",))
  found = train(held, params, gradients)
  before = flat(params)
  late = train(config, params, gradients[2:])
  for path in before:
    if not path.startswith("encoder/layers/"):
      continue
    for step in (0, 1):
      np.testing.assert_array_equal(found[step][path], before[path])
    for step in (2, 3, 4):
      np.testing.assert_allclose(
        found[step][path], late[step - 2][path], rtol=1e-5, atol=1e-6
      )
    assert np.abs(found[4][path] - before[path]).max() > 1e-4


def test_the_schedule_of_a_thawed_group_counts_all_updates():
  config = dataclasses.replace(
    BASE, warmup_steps=4, groups=(f"{LAYERS}: frozen_steps=2",)
  )
  optimizer = make_optimizer(config, 100, 64)
  found = [
    {k: float(v) for k, v in optimizer.learning_rates(jnp.int32(n)).items()}
    for n in range(4)
  ]
  assert found == [
    {"lr": 0.125 * (n + 1), f"lr/{LAYERS}": 0.125 * (n + 1) * (n >= 2)}
    for n in range(4)
  ]


def test_gradients_of_a_frozen_group_do_not_clip(drawn):
  params, gradients = drawn
  config = dataclasses.replace(
    BASE, name="sgd", momentum=0.0, clip_norm=1.0, groups=()
  )
  held = dataclasses.replace(config, groups=(f"{LAYERS}: frozen_steps=1",))
  never = dataclasses.replace(config, groups=(f"{LAYERS}: frozen=true",))
  one, frozen, whole = (
    train(settings, params, gradients[:1])[0]
    for settings in (held, never, config)
  )
  path = "encoder/embeddings/tokens/embedding"
  np.testing.assert_array_equal(one[path], frozen[path])
  assert np.abs(one[path] - whole[path]).max() > 1e-4


def test_a_gradient_that_is_held_may_be_anything(drawn):
  _, [grads, *_] = drawn
  config = dataclasses.replace(BASE, groups=(f"{LAYERS}: frozen_steps=2",))
  optimizer = make_optimizer(config, 100, 64)
  grads["encoder"]["layers"]["mlp_norm"]["bias"] *= jnp.nan
  norm = lambda step: float(optax.tree.norm(optimizer.hold(grads, step)))
  assert np.isfinite(norm(jnp.int32(1)))
  assert np.isnan(norm(jnp.int32(2)))


def test_a_pattern_of_what_is_never_trained_matches_nothing():
  config = dataclasses.replace(BASE, groups=("*/pooler/*: frozen=true",))
  optimizer = make_optimizer(config, 100, 64)
  with pytest.raises(ValueError, match=r"'.*/pooler/.*' matches no parameter"):
    check_groups(optimizer, tree_of(jnp.ones))


def test_a_groups_schedule_names_the_group():
  config = dataclasses.replace(
    BASE, groups=(f"{LAYERS}: schedule=linear, warmup_steps=100",)
  )
  with pytest.raises(
    ValueError, match=r"^optim.groups: 'encoder/layers/.*warmup_steps=100"
  ):
    make_optimizer(config, 100, 64)


def test_without_groups_a_state_is_laid_out_as_before():
  """Checkpoints of runs that have neither groups nor averages."""
  config = dataclasses.replace(BASE, clip_norm=1.0)
  params = {"encoder": {"head": {"bias": jnp.zeros(3)}}}
  state = make_optimizer(config, 100, 64).tx.init(params)
  paths = [
    leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)
  ]
  assert paths == [
    "1/count",
    "1/mu/encoder/head/bias",
    "1/nu/encoder/head/bias",
    "3/count",
  ]
