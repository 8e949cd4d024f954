"""The benchmark of a GPU is rehearsed on a CPU, at tiny sizes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def benchmark(*arguments, env):
  return subprocess.run(
    [ROOT / "benchmarks/gpu.sh", *arguments],
    env=env | {"PYTHON": sys.executable},
    capture_output=True,
    text=True,
    timeout=400,
  )


@pytest.mark.sample(1, group="whole runs")
def test_a_table_is_printed_with_ratios(one_device_env):
  done = benchmark("--tiny", env=one_device_env)
  assert done.returncode == 0, done.stdout + done.stderr
  for role in ("self", "causal", "cross"):
    line = re.search(rf"^  {role} .*$", done.stdout, re.MULTILINE)
    assert line and ": within bfloat16's error" in line[0], done.stdout
  # Both sides' rates and their ratio, of training and of each search.
  for row in (
    r"PyTorch +[\d.]+ +[\d.]+ +1.00x",
    r"ours, auto attention +[\d.]+ +[\d.]+ +[\d.]+x",
    r"greedy, batch 2 +\d+ +\d+ +[\d.]+x",
    r"2 beams, batch 2 +\d+ +\d+ +[\d.]+x",
  ):
    assert re.search(rf"^{row} ", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.sample(1, group="whole runs")
def test_time_that_is_over_leaves_rows_out(one_device_env):
  done = benchmark("--tiny", "--seconds=0", env=one_device_env)
  assert done.returncode == 1
  # Attention, both sides of training, generation.
  assert done.stdout.count("no time is left") == 4
  assert done.stderr.strip().splitlines() == [
    "cuDNN's attention was not shown to be right: see above"
  ]


def test_without_a_gpu_one_sentence_says_so(one_device_env):
  done = benchmark(env=one_device_env)
  assert done.returncode == 1 and not done.stdout
  (line,) = done.stderr.strip().splitlines()
  assert re.search(r"JAX finds no GPU \(.*\); --tiny needs none", line)
