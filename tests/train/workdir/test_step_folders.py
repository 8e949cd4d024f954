"""The folders of checkpoints: refusals, kills, several processes."""

import json
import pathlib
import random
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.checkpoint import Checkpoints
from train.errors import Refusal
from train.state import TrainState
from train.workdir import checksums

_ROOT = pathlib.Path(__file__).parents[3]


def _abstract(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def test_nothing_to_read_is_refused(tmp_path):
  with pytest.raises(Refusal, match=r"missing: nothing was saved there"):
    Checkpoints(tmp_path / "absent", writable=False)
  assert not (tmp_path / "absent").exists()
  with Checkpoints(tmp_path, writable=False) as checkpoints:
    with pytest.raises(Refusal, match="no good step"):
      checkpoints.restore_params({})
  with pytest.raises(Refusal, match="keep_last=0"):
    Checkpoints(tmp_path, keep_last=0)


def test_a_failed_save_is_raised_and_retires_nothing(tmp_path, monkeypatch):
  state = TrainState(jnp.int32(1), {"w": jnp.ones(3)}, {"m": jnp.ones(3)})
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, state, {}, None)
  checkpoints.wait()

  def fail(*args):
    raise OSError("no space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(checksums, "write", fail)
    checkpoints.save(2, state.replace(step=jnp.int32(2)), {}, None)
    with pytest.raises(OSError, match="no space"):
      checkpoints.wait()
  assert checkpoints.steps() == [1]


_SAVER = """
import sys, jax.numpy as jnp
from train.workdir import checksums
from train.checkpoint import Checkpoints
from train.state import TrainState
checkpoints = Checkpoints(sys.argv[1], keep_last=1)
first = step = checkpoints.latest_step() or 0
while True:
  step += 1
  leaves = {str(i): jnp.full((64, 512), step) for i in range(8)}
  state = TrainState(jnp.int32(step), leaves, {"m": leaves})
  checkpoints.save(step, state, {}, None)
  if step == first + 1:
    checkpoints.wait()
    print("ready", flush=True)
"""


def test_killed_at_any_moment_a_good_step_remains(
  tmp_path, count, seed, caplog
):
  """Most of the time a save, a commit or a deletion is under way."""
  rng = random.Random(seed)
  last = 0
  leaves = {str(i): jnp.zeros((64, 512), jnp.int32) for i in range(8)}
  state = TrainState(jnp.int32(0), leaves, {"m": leaves})
  for _ in range(count(2, 10)):
    with subprocess.Popen(
      [sys.executable, "-c", _SAVER, str(tmp_path)],
      cwd=_ROOT,
      stdout=subprocess.PIPE,
    ) as process:
      assert process.stdout.readline() == b"ready\n"
      time.sleep(rng.random())
      process.kill()
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
      restored, meta = checkpoints.restore(_abstract(state))
    step = meta["step"]
    assert step > last, "no step was saved since the last kill"
    assert int(restored.step) == step
    for leaf in jax.tree.leaves((restored.params, restored.opt_state)):
      assert (np.asarray(leaf) == step).all()
    last = step
    # The old step goes after the new one is there: both may be. What was half
    # written goes in the background.
    for _ in range(200):
      names = {path.name for path in tmp_path.iterdir()}
      if names <= {str(step - 1), str(step)}:
        break
      time.sleep(0.1)
    else:
      raise AssertionError(f"leftovers of the kill: {names}")
  # Not by the text of all: what a save of before has raised may come late.
  assert not [m for m in caplog.messages if " is bad" in m]


_PROCESS = """
import sys, jax, numpy as np, jax.numpy as jnp
folder, rank, port = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", 2, rank)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from train.workdir import checksums
from train.checkpoint import Checkpoints
from train.state import TrainState
mesh = Mesh(np.array(jax.devices()), ("a",))
def put(x, *spec):
  where = NamedSharding(mesh, PartitionSpec(*spec))
  return jax.make_array_from_callback(x.shape, where, lambda i: x[i])
def state(n):
  big = np.arange(64 * 1024, dtype=np.float32).reshape(64, 1024) + n
  return TrainState(put(np.int32(n)), {"w": put(big, "a")}, {"m": put(big)})
abstract = jax.tree.map(
  lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
  state(0),
)
def check(restored, n):
  for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(state(n))):
    for a, b in zip(got.addressable_shards, want.addressable_shards):
      np.testing.assert_array_equal(a.data, b.data)
with Checkpoints(folder, keep_last=2) as checkpoints:
  assert checkpoints.restore(abstract) is None
  for n in (1, 2):
    checkpoints.save(n, state(n), {}, None)
  restored, meta = checkpoints.restore(abstract)
  check(restored, 2)
if rank == 1:
  from pathlib import Path
  files = Path(folder, "2", "params", "ocdbt.process_1").rglob("*")
  path = max((f for f in files if f.is_file()), key=lambda f: f.stat().st_size)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
with Checkpoints(folder, keep_last=2) as checkpoints:
  restored, meta = checkpoints.restore(abstract)
  check(restored, 1)
  assert checkpoints.steps() == [1]
"""


def test_two_processes_write_and_verify_together(tmp_path, one_device_env):
  """Each writes the checksums of its files; both leave out a bad step."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", _PROCESS, str(tmp_path), str(rank), port],
      cwd=_ROOT,
      env=one_device_env,
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(2)
  ]
  errors = [process.communicate(timeout=120)[1] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], errors
  assert "set aside" in errors[0] and "ocdbt.process_1" in "".join(errors)
  manifests = [
    json.loads((tmp_path / f"1/checksums-{p}-of-2.json").read_text())["files"]
    for p in range(2)
  ]
  assert manifests[1] and all("process_1/" in name for name in manifests[1])
  assert not any("ocdbt.process_1/" in name for name in manifests[0])
