"""Small states to save, for the tests of checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.checkpoint import Checkpoints
from train.state import TrainState

_TX = optax.chain(
  optax.clip_by_global_norm(1.0),
  optax.adamw(1e-3, mask={"encoder": {"kernel": True, "bias": False}}),
)


def make_params(step: int, width: int = 8):
  kernel = np.arange(8.0 * width, dtype=np.float32).reshape(8, width) + step
  bias = np.full(width, step, np.float32)
  return {"encoder": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}


def make_state(step: int, *, ema: bool = False, width: int = 8) -> TrainState:
  params = make_params(step, width)
  moments = jax.tree.map(lambda leaf: leaf + step, _TX.init(params))
  return TrainState(
    step=jnp.int32(step),
    params=params,
    opt_state=moments,
    ema=make_params(step + 1) if ema else None,
  )


def as_abstract(state, sharding=None):
  def leaf(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  return jax.tree.map(leaf, state)


def assert_equal(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def save_steps(folder, steps, losses=None, **options) -> None:
  with Checkpoints(folder, **options) as checkpoints:
    for i, step in enumerate(steps):
      metrics = None
      if losses is not None and losses[i] is not None:
        metrics = {"eval/valid/loss": losses[i]}
      assert checkpoints.save(step, make_state(step), {"seed": 7}, metrics)
