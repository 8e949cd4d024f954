"""A signal in the first moments of a launcher."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The module that imports what takes long, at a moment when it does.
SCRIPT = """
import os, signal, sys
from launch import early
early.watch()
os.kill(os.getpid(), int(sys.argv[1]))
print("still here")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_the_process_by_one_sentence(number):
  done = subprocess.run(
    [sys.executable, "-c", SCRIPT, str(int(number))],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 128 + number
  assert done.stderr == f"stopped by {number.name}: nothing was begun\n"
  assert not done.stdout
