"""What stands after --: a command of main.py, its workdir and its name."""

import re

import pytest
from absl import flags

from launch import program
from launch.program import Program, Refusal


def test_the_workdir_is_the_last_one_that_is_given():
  given = ("--config=c.py", "--workdir=a", "-workdir", "b c")
  assert Program(given).workdir == "b c"
  assert Program((*given, "--workdir=d=e")).workdir == "d=e"


def test_a_command_without_a_workdir_is_refused():
  with pytest.raises(Refusal, match="--workdir is missing after --"):
    _ = Program(("--config=c.py", "--config.workdir=x")).workdir


@pytest.mark.parametrize(
  ("given", "said"),
  [
    ((), "there are no flags of main.py: pass them after --"),
    (("config=c.py",), "'config=c.py' is no flag of main.py"),
    (("--config=\0",), "zero character"),
  ],
)
def test_what_is_no_command_is_refused(given, said):
  with pytest.raises(Refusal, match=re.escape(said)):
    Program(given)


@pytest.mark.parametrize(
  ("workdir", "name"),
  [
    ("/bucket/runs/bert2bert_large", "bert2bert-large"),
    ("runs/optim.lr=1e-3,seed=2", "optim-lr-1e-3-seed-2"),
    ("/a/7", "run-7"),
    ("/", "run"),
    ("/a/" + "x" * 39 + "-y", "x" * 39),
  ],
)
def test_a_name_is_made_of_the_workdir(workdir, name):
  made = program.name_of(Program((f"--workdir={workdir}",)))
  assert program.check_name(made) == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "7", "a" * 41])
def test_a_name_that_a_cluster_would_refuse_is_refused(name):
  with pytest.raises(Refusal, match=f"--name={name}: write at most 40"):
    program.check_name(name)


def test_a_launchers_flags_are_its_own():
  own = flags.FlagValues()
  flags.DEFINE_string("account", "", "", flag_values=own)
  words = ["launch", "--account=a b", "--", "--account=c", "--", "d"]
  assert program.parse(words, own) == ["launch", "--account=c", "--", "d"]
  assert own["account"].value == "a b"
  assert "account" not in flags.FLAGS
