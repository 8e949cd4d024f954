"""Commands of docs/pods.md: each is one that its launcher takes."""

import re
import shlex
from pathlib import Path

import pytest
from absl import flags

from configs import common
from launch import exit_status, gke, program, slurm, sweep, tpu_vm
from launch.program import Program

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/pods.md").read_text()


def commands() -> list[tuple[str, list[str], list[str]]]:
  """Launcher, its flags, and those of main.py, of each whole command."""
  found = []
  for block in re.findall(r"```\n(.*?)```", PAGE, re.S):
    for line in block.replace("\\\n", " ").splitlines():
      words = shlex.split(line)
      if words[:2] == ["python", "-m"] and "..." not in line:
        place = words.index("--")
        name = words[2].removeprefix("launch.")
        found.append((name, words[3:place], words[place + 1 :]))
  return found


def render(name: str, own_words, main_words) -> str:
  if name == "sweep":
    given = dict(word[2:].split("=", 1) for word in own_words)
    assert all(flag in flags.FLAGS for flag in given), given
    workdir = Path(given["workdir"])
    launcher = sweep.read_launcher(
      given["launcher"], given["launcher_flags"], workdir
    )
    assert launcher is not None
    (command, *_) = sweep.members(given["config"], main_words)
    return launcher.render(command.program(workdir), "name")
  own = flags.FlagValues()
  module = {"slurm": slurm, "gke": gke, "tpu_vm": tpu_vm}[name]
  module.define(own)
  assert program.parse([name, *own_words], own) == [name]
  command = Program(tuple(main_words))
  if name == "tpu_vm":
    return tpu_vm.tpu_vm(own, command).whole(command)
  launcher = slurm.Slurm(own) if name == "slurm" else gke.Gke(own)
  return launcher.render(command, launcher.name(command))


def test_the_page_has_a_command_of_each_launcher():
  names = [name for name, _, _ in commands()]
  assert sorted(set(names)) == ["gke", "slurm", "sweep", "tpu_vm"]


@pytest.mark.parametrize(("name", "own", "main"), commands())
def test_a_command_is_taken(name, own, main, monkeypatch):
  monkeypatch.chdir(ROOT)
  assert "--workdir=" in render(name, own, main)
  for word in main:
    if match := re.match(r"--config\.(\w+)\.(\w+)=", word):
      assert match[2] in common.get_config()[match[1]]


def test_the_page_has_the_table_of_statuses():
  rows = re.findall(r"^\| (\d+) .*\| (yes|no) \|$", PAGE, re.M)
  assert {int(status) for status, _ in rows} == {0, 1, 75, 129, 130, 143}
  for status, again in rows:
    assert exit_status.runs_again(int(status)) == (again == "yes")
