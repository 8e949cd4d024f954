"""Checkpoints: bad files, retention, other meshes, donated states."""

import logging
import pathlib
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import checkpoint_managers

from tests.train.checkpoint_states import (
  as_abstract,
  assert_equal,
  make_params,
  make_state,
  save_steps,
)
from train import checkpoint
from train.checkpoint import Checkpoints
from train.errors import Refusal
from train.state import TrainState


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_state_comes_back_with_its_meta(tmp_path):
  state = make_state(3, ema=True)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore(as_abstract(state)) is None
    assert checkpoints.latest_step() is None
    checkpoints.save(3, state, {"seed": 7, "tokens": {"target": 11}}, None)
    checkpoints.wait()
    assert checkpoints.steps() == [3]
  with Checkpoints(tmp_path) as checkpoints:
    restored, meta = checkpoints.restore(as_abstract(state))
  assert_equal(restored, state)
  assert meta["tokens"] == {"target": 11}
  assert (meta["seed"], meta["step"], meta["format"]) == (7, 3, 2)


def test_a_step_that_is_there_is_left_as_it_is(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.save(1, make_state(1), {"run": "first"}, None)
    assert not checkpoints.save(1, make_state(1), {"run": "second"}, None)
    _, meta = checkpoints.restore(as_abstract(make_state(1)))
    assert meta["run"] == "first"
    with pytest.raises(ValueError, match="state of step 1, saved as 2"):
      checkpoints.save(2, make_state(1), {}, None)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_newest_and_the_best_stay(tmp_path, mode):
  sign = 1 if mode == "min" else -1
  losses = [3.0, 1.0, 2.0, None, float("nan"), 4.0]
  losses = [x if x is None else sign * x for x in losses]
  options = {
    "keep_last": 2,
    "best_metric": "eval/valid/loss",
    "best_mode": mode,
  }
  save_steps(tmp_path, range(1, 7), losses, **options)
  assert not (tmp_path / "retired").exists()
  with Checkpoints(tmp_path, **options) as checkpoints:
    assert checkpoints.steps() == [2, 5, 6]
    assert (checkpoints.best_step(), checkpoints.latest_step()) == (2, 6)
    best = {"step": 2, "value": sign * 1.0}
    assert checkpoints.restore(as_abstract(make_state(0)))[1]["best"] == best
    # What was read from the disk counts like what was saved in this run.
    for step, loss in [(7, sign * 0.5), (8, sign * 9.0), (9, None)]:
      metrics = None if loss is None else {"eval/valid/loss": loss}
      checkpoints.save(step, make_state(step), {}, metrics)
    checkpoints.wait()
    assert checkpoints.steps() == [7, 8, 9]
    assert checkpoints.best_step() == 7


def test_without_a_best_metric_the_newest_stay(tmp_path):
  save_steps(tmp_path, [1, 2, 3], [1.0, 2.0, 3.0], keep_last=2)
  with Checkpoints(tmp_path, keep_last=2) as checkpoints:
    assert checkpoints.steps() == [2, 3]
    assert checkpoints.best_step() is None


def test_the_policy_needs_reverse_for_a_loss():
  """Control of keep-best: Orbax alone would delete the lowest loss first."""
  infos = [
    checkpoint.ocp.checkpoint_manager.CheckpointInfo(i, None, {"loss": loss})
    for i, loss in enumerate([1.0, 2.0, 3.0])
  ]

  def keep(reverse):
    policy = checkpoint_managers.BestN(
      n=1, get_metric_fn=lambda metrics: metrics["loss"], reverse=reverse
    )
    context = checkpoint_managers.PreservationContext()
    return policy.should_preserve(infos, context=context)

  assert keep(True) == [True, False, False]
  assert keep(False) == [False, False, True]


def test_a_best_metric_that_nobody_measures_is_refused(tmp_path):
  with Checkpoints(tmp_path, best_metric="eval/valid/los") as checkpoints:
    with pytest.raises(Refusal, match=r"eval/valid/los'.*eval/valid/loss"):
      checkpoints.save(1, make_state(1), {}, {"eval/valid/loss": 1.0})


def test_parameters_alone_are_of_the_best_step(tmp_path):
  save_steps(
    tmp_path, [1, 2, 3], [3.0, 1.0, 2.0], best_metric="eval/valid/loss"
  )  # fmt: skip
  abstract = as_abstract(make_params(0))
  with Checkpoints(
    tmp_path, best_metric="eval/valid/loss", writable=False
  ) as checkpoints:
    params, meta = checkpoints.restore_params(abstract)
    assert_equal(params, make_params(2))
    assert meta["step"] == 2
    assert_equal(checkpoints.restore_params(abstract, 3)[0], make_params(3))
    with pytest.raises(Refusal, match=r"step 9 is not in .* it has: 2, 3"):
      checkpoints.restore_params(abstract, 9)
    with pytest.raises(ValueError, match="opened for reading"):
      checkpoints.save(4, make_state(4), {}, None)
  with Checkpoints(tmp_path, writable=False) as checkpoints:
    assert_equal(checkpoints.restore_params(abstract)[0], make_params(3))


def test_averages_are_read_in_the_place_of_parameters(tmp_path):
  with Checkpoints(tmp_path, keep_last=2) as checkpoints:
    checkpoints.save(3, make_state(3, ema=True), {}, None)
    checkpoints.save(4, make_state(4), {}, None)
  abstract = as_abstract(make_params(0))
  with Checkpoints(tmp_path, writable=False) as checkpoints:
    # Those of this state are one more than its parameters.
    assert_equal(checkpoints.restore_params(abstract, 3)[0], make_params(4))
    assert_equal(checkpoints.restore_params(abstract, 4)[0], make_params(4))


def test_a_state_moves_to_another_mesh(tmp_path):
  devices = np.array(jax.devices())
  line = Mesh(devices, ("a",))
  square = Mesh(devices.reshape(2, 4), ("a", "b"))
  specs = [
    NamedSharding(line, PartitionSpec("a")),
    NamedSharding(square, PartitionSpec("b", "a")),
  ]

  def shardings(state, sharding):
    replicated = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.tree.map(
      lambda x: sharding if x.ndim == 2 else replicated, state
    )

  state = make_state(1)
  with Checkpoints(tmp_path) as checkpoints:
    placed = jax.device_put(state, shardings(state, specs[0]))
    checkpoints.save(1, placed, {}, None)
    where = shardings(state, specs[1])
    abstract = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      state,
      where,
    )
    restored, _ = checkpoints.restore(abstract)
  assert_equal(restored, state)
  assert jax.tree.map(lambda x: x.sharding, restored) == where


def test_a_donated_state_is_saved_as_it_was(tmp_path):
  """The buffers are overwritten while the save is under way."""

  def step(state):
    params = jax.tree.map(lambda x: x * 1.5 + 1.0, state.params)
    return state.replace(step=state.step + 1, params=params)

  step = jax.jit(step, donate_argnums=0)
  state = TrainState(
    step=jnp.int32(0),
    params={"w": jnp.ones((512, 1024)), "v": jnp.zeros((512, 1024))},
    opt_state=(jnp.zeros(3),),
  )
  with Checkpoints(tmp_path) as checkpoints:
    for n in (1, 4, 7):
      state = step(state)
      want = jax.tree.map(np.array, state)
      checkpoints.save(n, state, {}, None)
      for _ in range(2):
        state = step(state)
      restored, _ = checkpoints.restore(as_abstract(state))
      assert_equal(restored, want)
      # And a restored state may be donated in turn.
      again = step(step(restored))
      assert_equal(again, state)


def _truncate(path: pathlib.Path) -> None:
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])


def _flip(path: pathlib.Path) -> None:
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("steps")
  options = {"keep_last": 2, "best_metric": "eval/valid/loss"}
  save_steps(folder, [1, 2], [2.0, 1.0], **options)
  return folder


def _copy(folder: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
  subprocess.run(["cp", "-r", folder, target], check=True)
  return target


@pytest.mark.parametrize("damage", [pathlib.Path.unlink, _truncate, _flip])
def test_a_bad_file_sets_the_step_aside(
  two_steps, tmp_path, damage, full, caplog
):
  """Every file of the newest step in turn (reduced: a few of each kind)."""
  names = [path.relative_to(two_steps) for path in _files(two_steps / "2")]
  # Without it a step is good all the same (see checksums).
  names = [n for n in names if n.name != "checksums-commit.json"]
  assert len(names) > 20
  if not full:
    names = names[::6] + [n for n in names if n.name == "metrics"]
  for i, name in enumerate(names):
    folder = _copy(two_steps, tmp_path / str(i))
    damage(folder / name)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="absl"):
      with Checkpoints(
        folder, keep_last=2, best_metric="eval/valid/loss"
      ) as checkpoints:
        restored, meta = checkpoints.restore(as_abstract(make_state(0)))
        assert checkpoints.steps() == [1]
    assert meta["step"] == 1
    assert_equal(restored, make_state(1))
    [message] = [r.getMessage() for r in caplog.records if "bad" in r.message]
    inside = name.relative_to("2").as_posix()
    assert inside in message and str(folder / "set_aside/2-0") in message
    kept = _files(folder / "set_aside/2-0")
    assert len(kept) >= len(_files(two_steps / "2")) - 1


def test_when_every_step_is_bad_nothing_begins_anew(two_steps, tmp_path):
  folder = _copy(two_steps, tmp_path / "run")
  for step in (1, 2):
    _flip(max(_files(folder / str(step)), key=lambda p: p.stat().st_size))
  # Also when they were set aside by an earlier start.
  for _ in range(2):
    with Checkpoints(folder) as checkpoints:
      with pytest.raises(
        Refusal, match=r"every step was bad, and is in .*set_aside"
      ):
        checkpoints.restore(as_abstract(make_state(0)))


def test_a_large_file_is_verified_when_it_is_restored(tmp_path, caplog):
  """Opening reads small files alone; one flipped bit is enough."""
  state = TrainState(
    step=jnp.int32(1),
    params={"w": jax.random.normal(jax.random.key(0), (256, 512))},
    opt_state=(jnp.zeros(3),),
  )
  second = state.replace(step=jnp.int32(2))
  with Checkpoints(tmp_path, keep_last=2) as checkpoints:
    checkpoints.save(1, state, {}, None)
    checkpoints.save(2, second, {}, None)
  path = max(_files(tmp_path / "2"), key=lambda path: path.stat().st_size)
  assert path.stat().st_size > 1 << 16
  _flip(path)
  with Checkpoints(tmp_path, keep_last=2) as checkpoints:
    assert checkpoints.steps() == [1, 2]
    with pytest.raises(Refusal, match=rf"2 is bad: .*{path.name}.*SHA-256"):
      checkpoints.restore(as_abstract(state), 2)
    restored, _ = checkpoints.restore(as_abstract(state))
    assert_equal(restored, state)
    # The number is free again, and a second bad one keeps its own folder.
    assert checkpoints.save(2, second, {}, None)
  _flip(next(p for p in _files(tmp_path / "2") if p.name == "_sharding"))
  with Checkpoints(tmp_path, keep_last=2) as checkpoints:
    assert checkpoints.steps() == [1]
  aside = sorted(path.name for path in (tmp_path / "set_aside").iterdir())
  assert aside == ["2-0", "2-1"]


def test_a_reader_passes_over_a_bad_step(two_steps, tmp_path, caplog):
  folder = _copy(two_steps, tmp_path / "copy")
  _truncate(folder / "2/metrics/metrics")
  before = _files(folder)
  with Checkpoints(
    folder, best_metric="eval/valid/loss", writable=False
  ) as checkpoints:
    params, meta = checkpoints.restore_params(as_abstract(make_params(0)))
  assert meta["step"] == 1
  assert_equal(params, make_params(1))
  assert _files(folder) == before
  assert "passed over" in caplog.text


def test_another_format_is_refused_by_name(two_steps, tmp_path, monkeypatch):
  folder = _copy(two_steps, tmp_path / "copy")
  monkeypatch.setattr(checkpoint, "CHECKPOINT_FORMAT", 3)
  with Checkpoints(folder, keep_last=2) as checkpoints:
    with pytest.raises(Refusal, match=r"2 has the format 2, this .* reads 3"):
      checkpoints.restore(as_abstract(make_state(0)))
    assert checkpoints.steps() == [1, 2]


def test_another_tree_is_refused_by_name(two_steps, tmp_path):
  wanted = {
    "bias is float32[8] there and float32[4] here": make_state(0, width=4),
    "kernel is float32[8, 8] there and bfloat16[8, 8] here": jax.tree.map(
      lambda x: x.astype(jnp.bfloat16) if x.ndim == 2 else x, make_state(0)
    ),
    "ema/encoder/bias is absent there": make_state(0, ema=True),
    "opt_state/1/0/count is int32[] there and absent": make_state(0).replace(
      opt_state=optax.sgd(1e-3).init(make_params(0))
    ),
  }
  with Checkpoints(two_steps, writable=False) as checkpoints:
    for message, state in wanted.items():
      with pytest.raises(Refusal) as error:
        checkpoints.restore(as_abstract(state))
      assert message in str(error.value)
