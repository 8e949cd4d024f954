"""launch/Dockerfile: what it copies, who runs it, and that it installs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch.cloud import jobset
from launch.cloud.tpu_commands import FILES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "launch/Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
  """Its instructions in order, each with what follows its name."""
  text = re.sub(r"^#.*\n", "", TEXT, flags=re.M).replace("\\\n", " ")
  lines = filter(None, map(str.strip, text.splitlines()))
  return [line.partition(" ")[::2] for line in lines]


def of(name: str) -> list[str]:
  return [rest for instruction, rest in instructions() if instruction == name]


def test_it_copies_what_a_run_needs_and_nothing_else():
  copied = [word for rest in of("COPY") for word in rest.split()[:-1]]
  assert sorted(copied) == sorted(FILES)
  ignored = (ROOT / ".dockerignore").read_text().split("\n")
  kept = [line[1:] for line in ignored if line.startswith("!")]
  assert "*" in ignored and sorted(kept) == sorted(FILES)


def test_main_is_run_by_a_user_with_few_rights():
  assert of("USER") == [f"{jobset.USER_ID}:{jobset.USER_ID}"]
  (entry,) = of("ENTRYPOINT")
  assert json.loads(entry) == ["python", "/encdec/main.py"]


def test_its_lines_install_what_main_needs(full, tmp_path):
  if not full:
    pytest.skip("it installs for minutes: at full counts")
  code = tmp_path / "encdec"
  code.mkdir()
  subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
  environment = {
    "EXTRA": "train",
    "HOME": str(tmp_path),
    "PATH": f"{tmp_path}/venv/bin:{os.environ['PATH']}",
  }
  # How pip reaches its index is the machine's.
  for name, value in os.environ.items():
    if name.startswith("PIP_") or name.lower().endswith("_proxy"):
      environment[name] = value
  for instruction, rest in instructions():
    if instruction == "COPY":
      *sources, target = rest.split()
      for source in sources:
        if (ROOT / source).is_dir():
          shutil.copytree(ROOT / source, code / target)
        else:
          shutil.copy(ROOT / source, code)
    elif instruction == "RUN":
      subprocess.run(
        ["bash", "-c", rest], cwd=code, env=environment, check=True
      )
  (entry,) = of("ENTRYPOINT")
  words = [word.replace("/encdec", str(code)) for word in json.loads(entry)]
  done = subprocess.run(
    [*words, "--config=configs/dates.py:smoke", f"--workdir={tmp_path}/run"],
    cwd=code,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, shlex.join(words) + done.stderr[-3000:]
  assert (tmp_path / "run/metrics.jsonl").exists()
