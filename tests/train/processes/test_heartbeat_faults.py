"""Runs of several processes that lose some: nothing is lost, nothing hangs."""

import functools
import random
import re
import shutil
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.train.processes import runs
from tests.train.processes.faults import FAULTS, MET_LATER, PHASES, Victim

STEPS, SAVE_EVERY = 12, 3
pytestmark = pytest.mark.timeout(1800)
# Compiling generation takes longer than the rest of the run.
PLAIN = {"eval.text_examples": -1}
# Enough of them that a fault finds some to be generated yet.
TEXTS = {"eval.text_examples": 0, "data.eval": "valid=dates@valid[:60]"}


def flags(folder, more):
  overrides = {
    "model.dropout": 0.1,
    "train.steps": STEPS,
    "train.log_every_steps": 1,
    "train.eval_every_steps": 6,
    "train.checkpoint_every_steps": SAVE_EVERY,
    "train.keep_last": 2,
    **more,
  }
  return [
    "--config=configs/dates.py:smoke",
    f"--workdir={folder}",
    *(f"--config.{name}={value}" for name, value in overrides.items()),
  ]


@pytest.fixture(scope="module")
def env(one_device_env):
  # Whatever compiles is logged: phases of a run are told by that.
  return one_device_env | {"JAX_LOG_COMPILES": "1"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, env):
  """`whole(count, more)`: an undisturbed run's folder, and its seconds."""
  done = {}

  def run(count, more):
    key = (count, *more.values())
    if key not in done:
      folder = tmp_path_factory.mktemp(f"whole{count}")
      began = time.monotonic()
      runs.finish(count, folder, flags(folder / "run", more), env)
      done[key] = folder / "run", time.monotonic() - began
    return done[key]

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


def samples(workdir):
  """The texts of every evaluation, where there are any."""
  found = sorted((workdir / "samples").glob("*"))
  return {path.name: path.read_text() for path in found}


def assert_ended_alike(workdir, other):
  assert runs.rows(workdir) == runs.rows(other)
  assert samples(workdir) == samples(other)
  for item in ("params", "opt_state"):
    got, want = tree_of(workdir, item), tree_of(other, item)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def disturb(started, victim, name, reached):
  """Does it when `reached()`; statuses, seconds, and whether it still ran."""
  while started.running() and not reached():
    time.sleep(0.02)
  running = started.running()
  joined = re.search(r"process 0 of \d+$", started.text(), re.MULTILINE)
  FAULTS[name](victim)
  fault = time.monotonic()
  if not joined:
    # Who waits for others to come at all is ended by what started it.
    time.sleep(1)
    started.send(signal.SIGTERM, victim.every())
  later = runs.ENOUGH if name in MET_LATER else 0
  statuses = started.wait(runs.MINUTE + later)
  # Finished, an error that is said, another lost, stopped, or killed; -15 where
  # Python was ending already, and -6 where JAX noticed first.
  assert {*statuses} <= {0, 1, 75, 143, -6, -9, -15}, started.tail()
  return statuses, time.monotonic() - fault, running


def lacks_a_shard(workdir):
  """Whether a prepared set is there, but for a file of ids."""
  sets = [path.parent for path in workdir.glob("store/*/manifest.json")]
  return any(not [*folder.glob("shard-*")] for folder in sets)


def mend_store(count, folder, words, env):
  """Does what a run says whose prepared sets lack a file."""
  started = runs.start(count, folder, words, env)
  assert started.wait(runs.ENOUGH) == [1] * count, started.tail()
  told = r"this file is missing; remove the folder (.*) and run again"
  found = re.search(told, started.text())
  assert found, started.tail()
  shutil.rmtree(found[1])


def strike(victim, name, reached, where):
  """A fault of a run that was started, when it is `reached()`."""
  began = time.monotonic()
  try:
    statuses, took, running = disturb(victim.run, victim, name, reached)
  finally:
    victim.run.kill()
  print(
    f"\nfault: {len(statuses)} processes, {name}, {where} (at "
    f"{time.monotonic() - began - took:.1f} s, "
    f"{'running' if running else 'over'}): {statuses} after {took:.1f} s",
    flush=True,
  )
  return running


# The full counts try twenty, each at a random moment.
@pytest.mark.sample(2, group="several processes")
@pytest.mark.parametrize("number", range(20))
def test_a_disturbed_run_ends_as_one_that_never_stopped(
  number, whole, tmp_path, env, seed, full
):
  draw = random.Random(f"{seed} {number}")
  # Four processes take minutes to begin on two cores.
  count = 4 if full and number % 4 == 0 else 2
  name = sorted(FAULTS)[number % len(FAULTS)]
  reference, seconds = whole(count, PLAIN)
  words = flags(tmp_path / "run", PLAIN)
  end = time.monotonic() + draw.uniform(0.1, 0.95) * seconds
  started = runs.start(count, tmp_path, words, env)
  victim = Victim(started, tmp_path / "run", draw)
  over = lambda: time.monotonic() > end
  strike(victim, name, over, f"a random moment of {seconds:.0f} s")
  if lacks_a_shard(tmp_path / "run"):
    mend_store(count, tmp_path / "told", words, env)
  runs.finish(count, tmp_path / "again", words, env)
  assert_ended_alike(tmp_path / "run", reference)


# The starts of a run, each with its fault; phases come in the order of steps.
# No chain takes longer than a test may.
CHAINS = [
  (
    2,
    ("kill one", "preparing"),
    ("stop one", "compiling"),
    ("kill one", "saving"),
  ),
  (2, ("no shard of ended", "steps"), ("no shard", "steps")),
  (2, ("stop one", "compiling generation"), ("kill all", "generating")),
  (
    4,
    ("stop one", "preparing"),
    ("kill one", "compiling"),
    ("stop one", "saving"),
  ),
  (4, ("kill one", "generating"), ("stop one", "generating")),
]


@pytest.mark.sample(2, group="several processes")
@pytest.mark.parametrize("number", range(len(CHAINS)))
def test_a_run_that_is_disturbed_in_its_phases_ends_alike(
  number, whole, tmp_path, env, seed, full
):
  """By all faults of a chain at full counts; else by one, of two processes."""
  draw = random.Random(f"{seed} {number}")
  count, *chain = CHAINS[number]
  if not full:
    count, chain = 2, [draw.choice(chain)]
  reference, _ = whole(count, TEXTS)
  words = flags(tmp_path / "run", TEXTS)
  for start, (name, phase) in enumerate(chain):
    started = runs.start(count, tmp_path / str(start), words, env)
    victim = Victim(started, tmp_path / "run", draw)
    reached = functools.partial(PHASES[phase], victim)
    running = strike(victim, name, reached, phase)
    assert running, started.tail()
    if lacks_a_shard(tmp_path / "run"):
      mend_store(count, tmp_path / f"told{start}", words, env)
  runs.finish(count, tmp_path / "again", words, env)
  assert_ended_alike(tmp_path / "run", reference)
