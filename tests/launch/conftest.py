"""A process of its own, for what forks and blocks signals."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from launch import local, sweep
folder = Path(sys.argv[1])
local.MAIN = folder / "main.py"
"""


@pytest.fixture
def script(tmp_path):
  """`script(body)`: runs it with `folder`, whose main.py stands in for ours.

  The tests' own process may have threads of JAX, which get signals that the
  main one blocks, and must not be forked.
  """

  def run(body):
    return subprocess.run(
      [sys.executable, "-c", PRELUDE + textwrap.dedent(body), str(tmp_path)],
      cwd=ROOT,
      env=os.environ | {"PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
      timeout=100,
    )

  return run
