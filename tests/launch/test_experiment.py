"""The config file of a sweep: read as it is, or refused with its line."""

from pathlib import Path

import pytest

from launch.experiment import Refusal, read

ROOT = Path(__file__).parents[2]
CONFIG = """
from ml_collections import ConfigDict

def get_config(arg="none"):
  return ConfigDict({"optim": {"lr": 0.1, "name": arg}, "train": {"steps": 1}})

def get_hyper():
  return %s
"""


def test_values_are_flat_and_members_as_the_file_has_them(tmp_path):
  path = tmp_path / "a.py"
  path.write_text(CONFIG % '({"optim.lr": lr} for lr in (1.0, 2.0))')
  values, members = read(str(path))
  assert values == {"optim.lr": 0.1, "optim.name": "none", "train.steps": 1}
  assert members == [{"optim.lr": 1.0}, {"optim.lr": 2.0}]
  assert read(f"{path}:large")[0]["optim.name"] == "large"


@pytest.mark.parametrize(
  "name, text, message",
  [
    ("people.csv", "name,city", r"people\.csv is no file of Python; name one"),
    ("a.py", "x = 1\ndef f(:\n", "a.py: line 2: SyntaxError: "),
    ("a.py", "import absent_module", "a.py: line 1: ModuleNotFoundError: "),
    ("a.py", "x = 1", r"has no get_config\(\)"),
    (
      "a.py",
      "def get_config(): pass\ndef get_hyper(): return []",
      "returns a NoneType, not a configuration",
    ),
    (
      "a.py",
      "def get_config(): return 1 / 0\ndef get_hyper(): return []",
      "line 1: ZeroDivisionError: ",
    ),
    ("a.py", CONFIG % "3", "must return a list of overrides"),
    ("a.py", CONFIG % '{"optim.lr": 3}', "must return a list of overrides"),
    ("a.py", CONFIG % "1 / 0", "line 8: ZeroDivisionError: "),
  ],
)
def test_a_config_that_fails_is_told_where(tmp_path, name, text, message):
  path = tmp_path / name
  path.write_text(text)
  with pytest.raises(Refusal, match=message) as refused:
    read(str(path))
  assert str(refused.value).startswith(f"--config={path}: ")
  assert "\n" not in str(refused.value)


def test_a_config_that_is_a_folder_is_refused(tmp_path):
  with pytest.raises(Refusal, match="is a folder; name a file in it"):
    read(str(tmp_path))


def test_a_config_without_a_sweep_is_refused(tmp_path):
  with pytest.raises(Refusal, match=r"there is no file .*absent\.py$"):
    read(str(tmp_path / "absent.py"))
  with pytest.raises(Refusal, match=r"did you mean configs/dates\.py\?"):
    read("configs/date.py")
  with pytest.raises(Refusal, match=r"dates\.py:smoek"):
    read("configs/dates.py:smoek")
  with pytest.raises(Refusal, match="has no get_hyper"):
    read(str(ROOT / "configs/common.py"))
