"""What the machine refuses is said in one line, and a run goes on after it."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from data.io import atomic_write
from train.cli import machine_errors
from train.errors import Refusal, refusing
from train.setting_names import naming

ROOT = Path(__file__).parents[3]
SMOKE = "--config=configs/dates.py:smoke"
# A process of JAX, as the tests' may be, should not be forked.
LIMITED = """
import os, resource, sys
limits = (int(sys.argv[1]), resource.RLIM_INFINITY)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def failing(number, path=None):
  return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
  ("number", "remedy"),
  [
    (errno.ENOSPC, "make room there; the same command then goes on"),
    (errno.EDQUOT, "make room there"),
    (errno.EFBIG, "ulimit -f"),
    (errno.EROFS, "choose another --workdir"),
    (errno.EACCES, "permissions"),
    (errno.ESTALE, "mount the folder anew"),
    (errno.ENAMETOOLONG, "choose a shorter path"),
    (errno.EMFILE, "ulimit -n"),
    (errno.ENOMEM, "memory"),
    (errno.ENOLCK, "that has locks"),
    (errno.EBUSY, "end what else uses it"),
  ],
)
def test_a_failure_names_what_where_and_the_remedy(number, remedy):
  line = machine_errors.explain(failing(number, "/data/file"), "runs/x")
  assert line and line.startswith(f"/data/file: {os.strerror(number)}: ")
  assert remedy in line and "\n" not in line
  # An error without a name, which closing has raised after one with a name.
  nameless = failing(number)
  assert (machine_errors.explain(nameless, "runs/x") or "").startswith(
    "--workdir=runs/x: "
  )
  nameless.__context__ = failing(number, "/data/file")
  assert machine_errors.explain(nameless, "runs/x") == line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_file_that_a_setting_names_is_not_lost(number):
  with (
    pytest.raises(Refusal) as refused,
    refusing(),
    naming("data.test"),
  ):
    raise failing(number, "/store/x.lock")
  line = machine_errors.explain(refused.value, "runs/x")
  assert line and line.startswith(f"/store/x.lock: {os.strerror(number)}: ")


def test_a_failure_is_found_under_others(tmp_path):
  with pytest.raises(Refusal) as refused, refusing():
    raise failing(errno.ENOSPC, "/data/file")
  line = machine_errors.explain(refused.value, "runs/x")
  assert line and line.startswith("/data/file: No space left")
  # What says more of it is left as it is.
  with pytest.raises(OSError) as composed:
    with atomic_write.replacing(tmp_path / "shard", "make room"):
      raise failing(errno.ENOSPC)
  assert machine_errors.explain(composed.value, "runs/x") == str(composed.value)
  # As tensorstore says it.
  text = 'RESOURCE_EXHAUSTED: at "/c/3/": write failed: No space left on device'
  line = machine_errors.explain(ValueError(text), "runs/x")
  assert line and line.startswith("/c/3/: No space left on device: make room")


def test_a_full_memory_is_told_with_what_takes_less():
  with pytest.raises(jax.errors.JaxRuntimeError) as full:
    jnp.zeros((10**14,), jnp.int8).block_until_ready()
  line = machine_errors.explain(full.value, "runs/x") or ""
  assert line.startswith("the device's memory is full (RESOURCE_EXHAUSTED: Out")
  for key in ("train.batch_size", "accumulate_steps", "model.remat='full'"):
    assert key in line
  error = jax.errors.JaxRuntimeError
  for text in (
    "INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory\nmore",
    "RESOURCE_EXHAUSTED: " + "x" * 9999,
  ):
    line = machine_errors.explain(error(text), "runs/x") or ""
    assert "train.batch_size" in line and "more" not in line
    assert len(line) < 600
  assert machine_errors.explain(error("INTERNAL: else"), "runs/x") is None
  text = "RESOURCE_EXHAUSTED: /c: No space left on device"
  assert "make room" in (machine_errors.explain(error(text), "runs/x") or "")
  line = (
    machine_errors.explain(MemoryError("Unable to allocate 3 GiB"), "runs/x")
    or ""
  )
  assert line.startswith("the host's memory is full (Unable to allocate 3 GiB)")


def test_what_is_raised_in_place_of_an_error_is_no_failure_of_its():
  try:
    try:
      raise failing(errno.EROFS, "/x")
    except OSError:
      raise Refusal("--workdir=/x: ...") from None
  except Refusal as refusal:
    assert machine_errors.explain(refusal, "runs/x") is None


def test_other_errors_are_no_failures_of_the_machine():
  for error in (
    FileNotFoundError(errno.ENOENT, "No such file", "/data/file"),
    OSError("nothing that has a number"),
    Refusal("a folder with No space left on device in its name"),
    KeyError("x"),
  ):
    assert machine_errors.explain(error, "runs/x") is None


def test_a_container_may_have_less_memory_than_its_host(tmp_path):
  limit = tmp_path / "memory.max"
  host = machine_errors._memory(limit)
  assert host > 10**8
  for text, memory in (("max\n", host), ("1000\n", 1000)):
    limit.write_text(text)
    assert machine_errors._memory(limit) == memory


@pytest.fixture
def main(one_device_env, tmp_path):
  """Runs main.py; `limit`: of the bytes of each file that it writes."""

  def run(*arguments, limit=resource.RLIM_INFINITY, **environment):
    return subprocess.run(
      [sys.executable, "-c", LIMITED, str(limit), "main.py", SMOKE, *arguments],
      cwd=ROOT,
      env=one_device_env | environment,
      capture_output=True,
      text=True,
      timeout=500,
    )

  return run


@pytest.mark.sample(1, group="whole runs")
def test_a_run_goes_on_when_there_is_room_again(main, tmp_path):
  run = tmp_path / "run"
  arguments = [f"--workdir={run}", "--config.eval.text_examples=-1"]
  assert main(*arguments, "--config.train.steps=3").returncode == 0
  full = main(*arguments, limit=200_000)
  assert full.returncode == 1
  *_, line = full.stderr.splitlines()
  assert line.startswith(f"error: {run}/checkpoints/6")
  assert "File too large: raise the limit" in line
  assert "Traceback" not in full.stderr
  assert "Exception ignored" not in full.stderr
  done = main(*arguments)
  assert done.returncode == 0, done.stderr
  assert "from step 3 to 6" in done.stderr
  assert "finished at step 6" in done.stdout


@pytest.mark.sample(1)
@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_device_that_is_not_there_is_named(main, platform, tmp_path):
  done = main(f"--workdir={tmp_path}/run", JAX_PLATFORMS=platform)
  assert done.returncode == 1
  assert "Traceback" not in done.stderr
  *_, line = done.stderr.splitlines()
  assert line.startswith(f"error: JAX_PLATFORMS={platform}: ")
  assert "set JAX_PLATFORMS=cpu" in line
  assert not (tmp_path / "run").exists()
