"""Runs of several processes that lose some: nothing is lost, nothing hangs."""

import random
import re
import resource
import shutil
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.train.processes import runs

STEPS, SAVE_EVERY = 12, 3
pytestmark = pytest.mark.timeout(1800)
FAULTS = {
  "kill one": lambda run, draw, _: run.send(signal.SIGKILL, [one(run, draw)]),
  "kill all": lambda run, draw, _: run.send(signal.SIGKILL, every(run)),
  "stop one": lambda run, draw, _: run.send(signal.SIGTERM, [one(run, draw)]),
  "stop all": lambda run, draw, _: run.send(signal.SIGTERM, every(run)),
  "full disk": lambda run, draw, _: fill_disk(run, one(run, draw)),
  "no store": lambda run, draw, folder: lose_store(folder),
  "damage": lambda run, draw, folder: damage(run, draw, folder),
}


def every(run):
  return range(len(run.processes))


def one(run, draw):
  return draw.randrange(len(run.processes))


def fill_disk(run, process):
  """As a full disk: no file of this process grows further."""
  pid = run.processes[process].pid
  if run.processes[process].poll() is None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (20_000, 20_000))


def lose_store(folder):
  """Takes the prepared sets away, under running processes."""
  shutil.rmtree(folder / "store", ignore_errors=True)


def damage(run, draw, folder):
  """Kills all, and takes a file of the newest checkpoint away."""
  run.send(signal.SIGKILL, every(run))
  run.wait(runs.MINUTE)
  steps = sorted(
    (p for p in (folder / "checkpoints").glob("*") if p.name.isdigit()),
    key=lambda path: int(path.name),
  )
  if len(steps) > 1:
    files = [p for p in (steps[-1] / "params").rglob("*") if p.is_file()]
    draw.choice(sorted(files)).unlink()


def flags(folder):
  overrides = {
    "model.dropout": 0.1,
    "train.steps": STEPS,
    "train.log_every_steps": 1,
    "train.eval_every_steps": 6,
    "train.checkpoint_every_steps": SAVE_EVERY,
    "train.keep_last": 2,
    # Compiling generation takes longer than the rest of the run.
    "eval.text_examples": -1,
  }
  return [
    "--config=configs/dates.py:smoke",
    f"--workdir={folder}",
    *(f"--config.{name}={value}" for name, value in overrides.items()),
  ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_device_env):
  """`whole(count)`: an undisturbed run's folder, and the seconds it took."""
  done = {}

  def run(count):
    if count not in done:
      folder = tmp_path_factory.mktemp(f"whole{count}")
      began = time.monotonic()
      runs.finish(count, folder, flags(folder / "run"), one_device_env)
      done[count] = folder / "run", time.monotonic() - began
    return done[count]

  return run


def tree_of(workdir, item):
  """What processes have saved, whole on one device."""
  folder = workdir / "checkpoints" / str(STEPS) / item
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  with ocp.StandardCheckpointer() as checkpointer:
    saved = checkpointer.metadata(folder).item_metadata.tree
    abstract = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
      saved,
    )
    return checkpointer.restore(folder, abstract)


def assert_ended_alike(workdir, other):
  assert runs.rows(workdir) == runs.rows(other)
  for item in ("params", "opt_state"):
    got, want = tree_of(workdir, item), tree_of(other, item)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# The full counts try twenty, each at a random moment.
@pytest.mark.sample(2, group="several processes")
@pytest.mark.parametrize("number", range(20))
def test_a_disturbed_run_ends_as_one_that_never_stopped(
  number, whole, tmp_path, one_device_env, seed
):
  draw = random.Random(f"{seed} {number}")
  count = 2 if number % 4 else 4
  name = sorted(FAULTS)[number % len(FAULTS)]
  reference, seconds = whole(count)
  workdir = tmp_path / "run"
  started = runs.start(count, tmp_path, flags(workdir), one_device_env)
  try:
    moment = draw.uniform(0.1, 0.95) * seconds
    end = time.monotonic() + moment
    while started.running() and time.monotonic() < end:
      time.sleep(0.02)
    running = started.running()
    joined = re.search(r"process 0 of \d+$", started.text(), re.MULTILINE)
    FAULTS[name](started, draw, workdir)
    fault = time.monotonic()
    if not joined:
      # Who waits for others to come at all is ended by what started it.
      time.sleep(1)
      started.send(signal.SIGTERM, every(started))
    # These are met when there is something to write or to read, or never.
    later = name in ("full disk", "no store")
    limit = runs.MINUTE + (2 * seconds if later else 0)
    statuses = started.wait(limit)
  finally:
    started.kill()
  step = [line for line in started.text().splitlines() if "from step" in line]
  print(
    f"fault {number}: {count} processes, {name} at {moment:.1f} s of "
    f"{seconds:.1f} s ({'in the steps' if step else 'before any step'}, "
    f"{'running' if running else 'over'}): {statuses} after "
    f"{time.monotonic() - fault:.1f} s"
  )
  # Finished, an error that is said, another lost, stopped, or killed; -15 where
  # Python was ending already, and -6 where JAX noticed first.
  assert {*statuses} <= {0, 1, 75, 143, -6, -9, -15}, started.tail()
  runs.finish(count, tmp_path / "again", flags(workdir), one_device_env)
  assert_ended_alike(workdir, reference)
