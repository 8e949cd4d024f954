"""The members of a sweep: their names, flags, and what is refused."""

from pathlib import Path

import pytest

from launch import members
from launch.program import Refusal

CONFIG = """
from ml_collections import ConfigDict

def get_config(arg=""):
  return ConfigDict({"optim": {"lr": 0.1}, "train": {"steps": 1}})

def get_hyper():
  return %s
"""


def write_config(folder: Path, hyper: str) -> str:
  path = folder / "experiment.py"
  path.write_text(CONFIG % hyper)
  return str(path)


def test_names_are_folders_and_differ_where_values_do():
  names = [
    members.member_name({"model.encoder": value})
    for value in ("a/b", "a_b", "a:b", "a b", "x" * 200, "x" * 201)
  ]
  assert len(set(names)) == len(names)
  assert not any(set(name) & set("/: ") for name in names)
  assert max(map(len, names)) < 120
  assert members.member_name({}) == "base"


@pytest.mark.parametrize(
  "hyper, message",
  [
    ("[]", "returns no members"),
    ('[{"optim.lrr": 1.0}]', "member 0 sets 'optim.lrr'"),
    ('[{"optim.lr": 1.0}] * 2', "the member optim.lr=1.0 twice"),
  ],
)
def test_a_wrong_sweep_is_refused(tmp_path, hyper, message):
  with pytest.raises(Refusal, match=message):
    members.members(write_config(tmp_path, hyper))


def test_a_members_command_ends_with_its_folder(tmp_path):
  config = write_config(tmp_path, '[{"optim.lr": 0.1}]')
  (member,) = members.members(config, ["--config.train.steps=3"])
  assert member.program(Path("runs/s")).flags == (
    f"--config={config}",
    "--config.optim.lr=0.1",
    "--config.train.steps=3",
    "--workdir=runs/s/optim.lr=0.1",
  )
