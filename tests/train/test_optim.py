"""Schedules, AdamW, and which leaves it touches."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train import optim
from train.optim import OptimConfig

BASE = OptimConfig(
  name="adamw",
  lr=0.5,
  schedule="constant",
  warmup_steps=0,
  b1=0.9,
  b2=0.98,
  eps=1e-6,
  weight_decay=0.0,
  clip_norm=0.0,
)


def rates(schedule: str, warmup: int, steps: int, width: int = 64) -> list:
  config = dataclasses.replace(BASE, schedule=schedule, warmup_steps=warmup)
  function = optim.make_schedule(config, steps, width)
  return [float(function(jnp.asarray(n))) for n in range(steps)]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "rsqrt"])
def test_warm_up_is_linear_and_its_first_update_is_not_zero(schedule):
  np.testing.assert_allclose(
    rates(schedule, 4, 10)[:4], [0.125, 0.25, 0.375, 0.5], rtol=1e-6
  )


def test_a_moved_end_of_the_schedule_is_told():
  """From the rate at the old end to that of the update that follows."""
  cosine = dataclasses.replace(BASE, schedule="cosine", warmup_steps=2)
  old, now = (optim.make_schedule(cosine, steps, 64) for steps in (6, 12))
  told = optim.describe_schedule_change(cosine, 6, 12, 6, 64)
  assert told is not None and "\n" not in told
  assert f"was {float(old(5)):.3g} at step 6" in told
  assert "would have been 0 next" in told
  assert f"now it is {float(now(6)):.3g}" in told
  assert "another --workdir" in told and "set train.steps=6" in told
  # In the warm-up nothing changes, nor where the end decides nothing.
  assert optim.describe_schedule_change(cosine, 6, 12, 1, 64) is None
  assert optim.describe_schedule_change(BASE, 6, 12, 6, 64) is None
  assert optim.describe_schedule_change(cosine, 6, 6, 5, 64) is None


def test_what_follows_the_warm_up():
  half = 0.5
  np.testing.assert_allclose(rates("constant", 0, 3), [half] * 3)
  np.testing.assert_allclose(
    rates("linear", 2, 6)[2:], half * np.array([1, 0.75, 0.5, 0.25]), rtol=1e-6
  )
  np.testing.assert_allclose(
    rates("cosine", 2, 6)[2:],
    half * 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4)),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    rates("rsqrt", 4, 20)[4:],
    half * np.sqrt(4 / np.arange(5, 21)),
    rtol=1e-6,
  )
  updates = np.arange(1, 21)
  np.testing.assert_allclose(
    rates("noam", 4, 20),
    half * 64**-0.5 * np.minimum(updates**-0.5, updates * 4**-1.5),
    rtol=1e-6,
  )


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"name": "adamm"}, "optim.name='adamm' is unknown; it is one of adamw"),
    ({"schedule": "cosin"}, "optim.schedule='cosin' is unknown; .*cosine"),
    ({"b2": 1.0}, r"optim.b2=1.0 must lie in"),
    ({"lr": -1e-3}, "optim.lr=-0.001 must be"),
    ({"lr": float("nan")}, "optim.lr=nan must be"),
    ({"eps": 0.0}, "optim.eps=0.0 must be positive"),
    ({"clip_norm": -1.0}, "optim.clip_norm=-1.0 must be"),
  ],
)
def test_wrong_values_are_refused_by_name(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(BASE, **change)


def test_a_warm_up_as_long_as_the_run_is_refused():
  config = dataclasses.replace(BASE, schedule="linear", warmup_steps=7)
  with pytest.raises(ValueError, match=r"optim.warmup_steps=7 .*train.steps=7"):
    optim.make_schedule(config, 7, 64)
  # The others need no step after it.
  optim.make_schedule(dataclasses.replace(config, schedule="rsqrt"), 7, 64)


def tree_of(make):
  return {
    "encoder": {
      "embeddings": {"tokens": {"embedding": make((6, 2))}},
      "layers": {
        "self_attention": {
          "query": {"kernel": make((2, 3, 2, 2)), "bias": make((2, 2, 2))}
        },
        "mlp_norm": {"scale": make((2, 3)), "bias": make((2, 3))},
      },
      "pooler": {"kernel": make((3, 3)), "bias": make((3,))},
    },
    "enc_to_dec_proj": {"kernel": make((3, 4)), "bias": make((4,))},
  }


def test_decay_goes_by_path_and_spares_biases_of_any_rank():
  params, _ = optim.split_trained(tree_of(jnp.ones))
  config = dataclasses.replace(BASE, weight_decay=0.1)
  tx = optim.make_optimizer(config, optim.make_schedule(config, 10, 64))
  updates, _ = tx.update(optax.tree.zeros_like(params), tx.init(params), params)
  side = updates["encoder"]
  query = side["layers"]["self_attention"]["query"]
  for leaf in (
    query["kernel"],
    side["embeddings"]["tokens"]["embedding"],
    updates["enc_to_dec_proj"]["kernel"],
  ):
    np.testing.assert_allclose(leaf, np.full(leaf.shape, -0.05), rtol=1e-6)
  for leaf in (
    query["bias"],
    side["layers"]["mlp_norm"]["scale"],
    side["layers"]["mlp_norm"]["bias"],
    updates["enc_to_dec_proj"]["bias"],
  ):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))


def test_a_pooler_takes_no_part():
  params = tree_of(jnp.ones)
  trained, frozen = optim.split_trained(params)
  assert frozen == {"encoder": {"pooler": params["encoder"]["pooler"]}}
  assert "pooler" not in trained["encoder"]
  assert optim.merge(trained, frozen) == params
  moments = optim.make_optimizer(BASE, lambda n: 0.1).init(trained)
  assert "pooler" not in str(moments)


def test_adamw_with_clipping_is_its_definition(seed):
  rng = np.random.default_rng(seed)
  config = dataclasses.replace(BASE, weight_decay=0.1, clip_norm=0.7)
  tx = optim.make_optimizer(config, optim.make_schedule(config, 10, 64))
  value = rng.normal(size=(3, 4))
  params = {"kernel": jnp.asarray(value, jnp.float32)}
  state, m, v = tx.init(params), 0.0, 0.0
  for n in range(1, 4):
    grad = rng.normal(size=(3, 4))
    updates, state = tx.update(
      {"kernel": jnp.asarray(grad, jnp.float32)}, state, params
    )
    params = optax.apply_updates(params, updates)
    grad = grad * min(1, 0.7 / np.linalg.norm(grad))
    m, v = 0.9 * m + 0.1 * grad, 0.98 * v + 0.02 * grad**2
    step = (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.98**n)) + 1e-6)
    value = value - 0.5 * (step + 0.1 * value)
    np.testing.assert_allclose(params["kernel"], value, rtol=1e-4, atol=1e-5)
