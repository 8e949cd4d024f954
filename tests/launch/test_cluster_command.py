"""Commands of a cluster: what they print, and what is said when they fail."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import cluster_command
from launch.program import Refusal

ROOT = Path(__file__).parents[2]


def test_a_command_gets_a_text_and_gives_what_it_prints():
  assert cluster_command.call(["cat"], "a\nb") == "a\nb"


@pytest.mark.parametrize(
  ("script", "said"),
  [
    ("echo ERROR: no quota >&2; echo see help >&2; exit 3", "ERROR: no quota"),
    ("echo only this; exit 1", "only this"),
    ("exit 7", "exit status 7"),
    ("printf 'x%.0s' {1..500} >&2; exit 1", "x" * 400),
  ],
)
def test_a_failure_is_told_by_its_own_last_error(script, said):
  with pytest.raises(Refusal) as refusal:
    cluster_command.call(["bash", "-c", script])
  assert str(refusal.value) == f"bash failed: {said}"


def test_a_command_that_is_not_there_is_told(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  with pytest.raises(Refusal, match="gcloud is not installed here: install"):
    cluster_command.call(["gcloud", "info"])
  (tmp_path / "gcloud").touch()
  with pytest.raises(Refusal, match="gcloud cannot be run: Permission denied"):
    cluster_command.call(["gcloud", "info"])


def test_a_command_is_named_without_what_it_is_about():
  words = ["gcloud", "compute", "tpus", "delete", "tpu-7", "--force", "a"]
  assert cluster_command.name(words) == "gcloud compute tpus delete"
  assert (
    cluster_command.name(["kubectl", "apply", "-f", "-"]) == "kubectl apply"
  )


def test_the_last_line_of_a_file_is_that_of_its_end(tmp_path):
  log = tmp_path / "log"
  log.write_bytes(b"error: old\n" + b"\xff" * 70000 + b"\nerror: new\nmore\n")
  assert cluster_command.last_line_of(log) == "error: new"
  assert cluster_command.last_line_of(tmp_path / "none") == ""


def test_a_command_ends_with_whoever_called_it(tmp_path):
  """What was not submitted when a sweep was killed is not submitted later."""
  code = (
    "from launch import cluster_command\n"
    f"script = 'echo > {tmp_path}/began; sleep 2; echo > {tmp_path}/late'\n"
    "cluster_command.call(['bash', '-c', script])"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
  )
  end = time.monotonic() + 60
  while not (tmp_path / "began").exists():
    assert time.monotonic() < end
    time.sleep(0.02)
  process.kill()
  process.wait()
  time.sleep(2.5)
  assert not (tmp_path / "late").exists()
