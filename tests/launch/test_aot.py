"""Programs are compiled for chips that are not here, by the command."""

import pickle
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
  (sys.platform, platform.machine()) != ("linux", "x86_64"),
  reason="libtpu, the TPU's compiler, is built for Linux on x86-64 alone",
)
ROOT = Path(__file__).parents[2]
SMOKE = "--config=configs/bert2bert_cnn_dailymail.py:smoke"


def aot(*arguments, env):
  return subprocess.run(
    [sys.executable, "-m", "launch.aot", *arguments],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=500,
  )


@pytest.mark.sample(1)
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--topology=v9:2x2"], "the chip 'v9' is not known.*v5e:4x4"),
    (["--topology=v5e:64x64"], "4096 chips.*at most 256.*--num_slices"),
    (["--topology=pod"], "is no topology.*v5e:4x4"),
    ([], "--topology is missing"),
    (
      ["--topology=v5e:2x2", "--config.mesh.fsdp=3"],
      "does not fit 4 devices",
    ),
    (
      ["--topology=v5e:2x2", "--config.train.batch_size=6"],
      "train.batch_size=6 must be a multiple of 4",
    ),
    (
      ["--topology=v5e:2x2", "--save=nowhere/step.bin"],
      "--save=nowhere/step.bin: there is no folder nowhere; make it",
    ),
    (
      ["--topology=v5e:2x2", "--save=step.bin", "--mode=predict"],
      "--save keeps one program, and generation is two",
    ),
    (
      ["--topology=v5e:2x2", "--config.model.attention=warp"],
      "model.attention = 'warp': choose one of auto, short",
    ),
  ],
)
def test_bad_input_is_one_line(arguments, message, one_device_env):
  done = aot(SMOKE, *arguments, env=one_device_env)
  assert done.returncode == 1, done.stderr
  last = done.stderr.strip().splitlines()[-1]
  assert re.search(message, last), done.stderr
  assert "Traceback" not in done.stderr


@pytest.mark.sample(2, group="compiled for accelerators")
def test_a_step_is_compiled_and_measured(one_device_env, tmp_path):
  program = tmp_path / "step.bin"
  done = aot(
    SMOKE,
    "--topology=v5e:2x2",
    f"--save={program}",
    env=one_device_env,
  )
  assert done.returncode == 0, done.stderr
  assert "4 x TPU v5 lite (data=4)" in done.stdout
  assert re.search(r"all-reduce over data, 4 devices", done.stdout)
  assert re.search(r"2 x \S*encoder._scan", done.stdout)
  assert "unknown" not in done.stdout
  # With the trees that JAX loads it by.
  binary, given, out = pickle.loads(program.read_bytes())
  assert len(binary) > 10_000
  assert given.num_leaves > 100 and out.num_leaves > 100
