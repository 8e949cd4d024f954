"""TPU VMs: what the flags ask for, and the scripts of the hosts."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import hypothesis
import pytest
from absl import flags
from hypothesis import strategies as st

from launch import tpu_vm
from launch.program import Program, Refusal

ROOT = Path(__file__).parents[2]
LEAST = ("--zone=us-west4-a", "--accelerator_type=v5litepod-16")


def runs(folder: Path) -> list[list[str]]:
  lines = (folder / "run/ran").read_text().splitlines()
  return [json.loads(line) for line in lines]


def machines(*words: str, workdir: str = "/bucket/a", more=()):
  own = flags.FlagValues()
  tpu_vm.define(own)
  own(["tpu_vm", *words])
  command = Program((f"--workdir={workdir}", *more))
  return tpu_vm.tpu_vm(own, command), command


@pytest.mark.parametrize("shared", ["--bucket=bb", "--nfs=host:/a"])
def test_the_hosts_scripts_are_sound(shared, tmp_path):
  found, command = machines(*LEAST, shared, "--mount=/m m", workdir="/m m/a")
  checker = Path(sys.executable).parent / "shellcheck"
  for number, script in enumerate((found.set_up(), found.run(command))):
    path = tmp_path / f"{number}.sh"
    path.write_text(f"#!/usr/bin/env bash\n{script}")
    done = subprocess.run([checker, path], capture_output=True, text=True)
    assert not done.stdout + done.stderr


TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"))


@hypothesis.given(st.lists(TEXT, max_size=20))
@hypothesis.settings(
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
  max_examples=4,
)
@hypothesis.example(["a b", "'", '"', "$HOME", "1\n2\n", "\\", "@flags@"])
def test_flags_arrive_as_they_were_given(cloud, tmp_path, values):
  given = [f"--config.x={value}" for value in values]
  workdir = f"{tmp_path}/run"
  found, command = machines(
    *LEAST, "--bucket=bb", f"--mount={tmp_path}", workdir=workdir, more=given
  )
  for words in (
    found.pack(str(tmp_path)),
    found.copy("run", str(tmp_path)),
    found.ssh("run", found.set_up()),
    found.ssh("run", found.run(command)),
  ):
    subprocess.run(words, check=True, capture_output=True)
  assert runs(tmp_path)[-1] == [f"--workdir={workdir}", *given]


def test_the_code_is_packed(tmp_path, tools):
  found, _ = machines(*LEAST, "--bucket=bb")
  subprocess.run(found.pack(str(tmp_path)), check=True)
  with tarfile.open(tmp_path / "encdec.tar.gz") as archive:
    names = set(archive.getnames())
  code = {str(p.relative_to(ROOT)) for p in (ROOT / "train").rglob("*.py")}
  assert code < names and {"main.py", "constraints.txt"} < names
  assert not [name for name in names if "__pycache__" in name]


@pytest.mark.parametrize(
  ("words", "workdir", "said"),
  [
    (LEAST[1:], "/bucket/a", "--zone is missing: pass one that has TPUs"),
    ((*LEAST, "--zone=us"), "/bucket/a", "--zone=us is no zone"),
    (LEAST[:1], "/bucket/a", "--accelerator_type is missing"),
    ((*LEAST, "--accelerator_type=v5e"), "/bucket/a", "=v5e is no type"),
    (
      (*LEAST, "--accelerator_type=v9-8"),
      "/bucket/a",
      "one such as v4-1",
    ),
    ((*LEAST, "--python=a b"), "/bucket/a", "--python=a b: write a name"),
    (LEAST, "/home/a", "--workdir=/home/a is not seen by every host"),
    ((*LEAST, "--nfs=h:/a"), "/bucket/a", "one of --bucket and --nfs"),
  ],
)
def test_what_there_is_not_is_refused(words, workdir, said):
  with pytest.raises(Refusal) as refusal:
    machines(*words, "--bucket=bb", workdir=workdir)
  assert said in str(refusal.value)
