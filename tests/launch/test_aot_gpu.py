"""Programs for NVIDIA GPUs that are not here, by the command."""

import importlib.util
import re

import pytest

from tests.launch.test_aot import SMOKE, aot

HAS_COMPILER = importlib.util.find_spec("jax_cuda12_plugin") is not None
needs_compiler = pytest.mark.skipif(
  not HAS_COMPILER,
  reason="CUDA's compiler is not installed: pip install 'encdec[aot-cuda]'",
)


def refused(done, message):
  assert done.returncode == 1, done.stderr
  last = done.stderr.strip().splitlines()[-1]
  assert re.search(message, last), done.stderr
  assert "Traceback" not in done.stderr


def test_bad_input_is_one_line(one_device_env):
  done = aot(
    SMOKE,
    "--topology=h200:8",
    "--config.model.attention=cudnn",
    env=one_device_env,
  )
  refused(done, "model.attention='cudnn' cannot be compiled.*attention='xla'")


@pytest.mark.skipif(HAS_COMPILER, reason="CUDA's compiler is installed")
def test_the_missing_compiler_is_named(one_device_env):
  done = aot(SMOKE, "--topology=h200:8", env=one_device_env)
  refused(done, r"needs CUDA's compiler: pip install 'encdec\[aot-cuda\]'")


@pytest.mark.sample(2, group="compiled for accelerators")
@needs_compiler
def test_generation_is_compiled_for_two_hosts(one_device_env):
  done = aot(SMOKE, "--topology=h100:16", "--mode=predict", env=one_device_env)
  assert done.returncode == 0, done.stderr
  assert "XLA's attention: cuDNN is not compiled without a dev" in done.stdout
  assert "16 x NVIDIA H100 80GB HBM3 (data=16)" in done.stdout
  assert "== search" in done.stdout
