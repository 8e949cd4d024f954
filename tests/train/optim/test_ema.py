"""Averages of parameters: how they move, and that they are what is used."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from encdec.sharding import leaf_path
from tests.train.optim.bases import BASE
from train import loop, state
from train.errors import Refusal
from train.evaluators.suite import Suite
from train.optim import ema
from train.setup import datasets, trained
from train.workdir.metrics_file import read_rows


def test_the_decay_warms_up(seed):
  rng = np.random.default_rng(seed)
  values = rng.normal(size=(6, 3)).astype(np.float32)
  start = rng.normal(size=3).astype(np.float32)
  average, expected = ema.begin({"kernel": jnp.asarray(start)}), start
  for n, value in enumerate(values):
    trained_now = {"kernel": jnp.asarray(value)}
    average = ema.move(average, trained_now, jnp.int32(n), 0.25)
    decay = min(0.25, (1 + n) / (10 + n))
    expected = decay * expected + (1 - decay) * value
    np.testing.assert_allclose(average["kernel"], expected, rtol=1e-5)
  # From 1 / 10 on, and 0.25 from n = 2 on.
  assert (1 + 1) / (10 + 1) < 0.25 <= (1 + 2) / (10 + 2)


def test_averages_are_float32_and_of_what_stays_its_bits(seed):
  value = jnp.asarray(np.random.default_rng(seed).normal(size=64), jnp.bfloat16)
  average = first = ema.begin({"kernel": value})
  for n in range(5):
    average = ema.move(average, {"kernel": value}, jnp.int32(n), 0.9)
  assert average["kernel"].dtype == jnp.float32
  np.testing.assert_array_equal(average["kernel"], first["kernel"])


def test_averages_take_the_place_of_what_they_are_of():
  params = {
    "encoder": {"pooler": jnp.ones(2), "kernel": jnp.ones(2, jnp.bfloat16)}
  }
  found = ema.averaged(params, {"encoder": {"kernel": jnp.full(2, 3.0)}})
  assert found["encoder"]["pooler"] is params["encoder"]["pooler"]
  assert found["encoder"]["kernel"].dtype == jnp.bfloat16
  assert found["encoder"]["kernel"].tolist() == [3.0, 3.0]
  assert ema.averaged(params, None) is params


def test_a_decay_of_one_is_refused():
  with pytest.raises(ValueError, match=r"optim.ema_decay=1.0 must lie in"):
    dataclasses.replace(BASE, ema_decay=1.0)


def flat(tree):
  return {
    leaf_path(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def item(folder, step, name):
  with ocp.StandardCheckpointer() as checkpointer:
    path = folder / "checkpoints" / str(step) / name
    return flat(checkpointer.restore(path))


def test_a_run_evaluates_and_gives_its_averages(
  tiny_config, one_device, tmp_path
):
  config, folder = tiny_config, tmp_path / "run"
  config.optim.lr = 3e-2
  config.optim.ema_decay = 0.99
  config.optim.groups = ("encoder/layers/mlp/*: frozen=true",)
  config.eval.text_examples = -1
  loop.run(config, str(folder))
  rows = read_rows(folder / "metrics.jsonl")
  losses = [row["eval/valid/loss"] for row in rows if "eval/valid/loss" in row]
  best = [2, 4][losses.index(min(losses))]
  this = trained.load(config, str(folder))
  assert this.step == best
  params, averages = (item(folder, best, name) for name in ("params", "ema"))
  frozen = {path for path in params if path.startswith("encoder/layers/mlp/")}
  poolers = {path for path in params if "/pooler/" in path}
  assert frozen and set(averages) == set(params) - frozen - poolers
  found = flat(this.params)
  assert set(found) == set(params)
  for path, value in (params | averages).items():
    np.testing.assert_array_equal(found[path], value)
  moved = [path for path in averages if (averages[path] != params[path]).any()]
  assert len(moved) > 0.8 * len(averages)
  # What training has measured is of the averages too; of parameters it is not.
  sets = datasets.held_out(config, this.task, folder, config.data.eval)
  suite = Suite(config, this.task, this.mesh, this.shardings, sets)
  raw = traverse_util.unflatten_dict(params, sep="/")
  with jax.set_mesh(this.mesh):
    again, other = (
      suite.run(tree)[0]["eval/valid/loss"] for tree in (this.params, raw)
    )
  assert again == pytest.approx(min(losses), rel=1e-5)
  assert abs(other / again - 1) > 1e-3
  # A run that goes on neither drops nor begins its averages.
  config.optim.ema_decay = 0.0
  with pytest.raises(Refusal, match=r"optim.ema_decay: 0.99 -> 0.0"):
    loop.run(config, str(folder))


def test_a_state_without_averages_has_no_such_item():
  now = state.TrainState(jnp.int32(3), {"a": jnp.ones(2)}, (), None)
  assert set(now.trees()) == {"params", "opt_state"}
  now = dataclasses.replace(now, ema={"a": jnp.ones(2)})
  assert set(now.trees()) == {"params", "opt_state", "ema"}
