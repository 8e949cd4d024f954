"""Training by a fused kernel of attention is training by XLA's."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from encdec.sharding import DEFAULT_RULES
from tests.train.sharded_cases import (
  CASES,
  MIXED,
  ONE,
  OPTIMIZER,
  batch_of,
  mesh_of,
  module_of,
  params_of,
)
from train import state, step
from train.mesh import batch_sharding

CASE = dataclasses.replace(CASES["values"], vocab_size=120, accumulate_steps=1)
STEPS = 10


def _batch(packed: bool):
  """Few rows, and of packed ones each ends in a second text, on both sides."""
  batch = {name: x[:8].copy() for name, x in batch_of(CASE, 0).items()}
  if not packed:
    return batch
  for side, tokens in (
    ("encoder", ("encoder_tokens",)),
    ("decoder", ("decoder_inputs", "decoder_targets", "decoder_weights")),
  ):
    segments, positions = (
      batch[f"{side}_{name}"] for name in ("segments", "positions")
    )
    for row, length in enumerate(segments.sum(axis=1)):
      first = min(length, segments.shape[1] - 1)
      more = slice(first, segments.shape[1])
      segments[row, more] = 2
      positions[row, more] = np.arange(segments.shape[1] - first)
      for name in tokens:
        batch[name][row, more] = batch[name][row, 0]
  return batch


@functools.cache
def _losses(attention: str, sizes: tuple[int, int, int]):
  """Of ten steps on padded rows, and of ten on packed ones."""
  mesh = mesh_of(sizes)
  module = module_of(CASE).clone(attention=attention, remat="ctx")
  abstract = state.abstract_state(module, OPTIMIZER, mesh, DEFAULT_RULES)
  train = step.jit_train_step(
    module=module,
    optimizer=OPTIMIZER,
    config=step.StepConfig(seed=5),
    mesh=mesh,
    rules=DEFAULT_RULES,
    shardings=state.state_shardings(abstract),
  )
  # Large ones, so that who attends to whom is seen in the loss.
  params = jax.tree.map(lambda leaf: 4 * leaf, params_of(module))
  place = batch_sharding(mesh, DEFAULT_RULES)
  found = []
  for packed in (False, True):
    batch = jax.device_put(_batch(packed), place)
    with jax.set_mesh(mesh):
      now = state.create_state(
        module, OPTIMIZER, mesh, DEFAULT_RULES, jax.random.key(0), params
      )
      for _ in range(STEPS):
        now, metrics = train(now, batch)
        found.append(float(metrics["loss"]))
  return np.reshape(found, (2, STEPS))


# The last takes longest to compile, and only at full counts.
@pytest.mark.sample(1)
@pytest.mark.parametrize(
  ("kernel", "sizes"),
  [
    ("short", ONE),
    ("short", MIXED),
    ("splash", ONE),
    pytest.param("splash", MIXED, marks=pytest.mark.sample(0, group="long")),
  ],
)
def test_ten_steps_by_a_kernel_lose_what_xlas_lose(kernel, sizes):
  expected, found = _losses("xla", ONE), _losses(kernel, sizes)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
  padded, packed = expected
  assert np.abs(padded - packed).max() > 1e-2
  # They learn: what is equal is no constant.
  assert (expected[:, 0] - expected[:, -1] > 1e-2).all()
