"""The file of --config: where it is, and where it fails, in one line."""

import sys

import pytest
from ml_collections.config_flags import config_flags

from train.cli import config_file
from train.errors import Refusal

# absl's way of reading a file, in the version that is pinned.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")


def read(value):
  """What `main.py --config=value` does with it."""
  with config_file.reading(value):
    # Read again under one name, a module would keep what it had.
    sys.modules.pop("test_config", None)
    config = config_flags.ConfigFileFlagParser("test").parse(value)
    # A file that cannot be opened fails when its configuration is used.
    config.items()


def refused(value):
  with pytest.raises(Refusal) as caught:
    read(value)
  message = str(caught.value)
  assert message.startswith(f"--config={value}: ") and "\n" not in message
  return message.removeprefix(f"--config={value}: ")


@pytest.mark.parametrize(
  ("value", "near"),
  [
    ("configs/quickstrat.py", "configs/quickstart.py"),
    ("configs/quickstart", "configs/quickstart.py"),
    ("quickstart.py", "configs/quickstart.py"),
    ("config/dates.py:smoke", "configs/dates.py:smoke"),
    ("configs/bert2gpt2.py", "configs/bert2gpt2_cnn_dailymail.py"),
  ],
)
def test_a_mistyped_file_gets_the_nearest(value, near):
  path = value.partition(":")[0]
  message = refused(value)
  assert message.startswith(f"there is no file {path} (from ")
  assert message.endswith(f"; did you mean {near}?")


def test_files_of_its_folder_are_near(tmp_path):
  (tmp_path / "summaries.py").write_text("")
  value = str(tmp_path / "sumaries.py:smoke")
  near = f"{tmp_path}/summaries.py:smoke"
  assert refused(value).endswith(f"did you mean {near}?")


def test_what_is_like_no_file_gets_no_suggestion(tmp_path):
  assert refused(str(tmp_path / "zzz.py")).endswith("; fix the path")
  assert "is a folder; name a file in it" in refused(str(tmp_path))


FAILING = {
  "raise": ('  raise KeyError("x")', "line 4: KeyError: x"),
  "name": ("  return foo", "line 4: NameError: name 'foo' is not defined"),
  "syntax": ("  return (", "line 4: SyntaxError: '(' was never closed"),
  "key": (
    "  config = dates.get_config()\n  config.train.stpes = 3",
    'line 5: AttributeError: Key "stpes" does not exist and cannot be added '
    'since the config is locked. Did you mean "steps" instead of "stpes"?',
  ),
  "type": (
    '  config = dates.get_config()\n  config.train.steps = "three"',
    "line 5: TypeError: Could not override field 'steps'",
  ),
  "value": ('  return int("3x")', "line 4: ValueError: invalid literal"),
  "open": (
    '  return open("none.txt")',
    "line 4: FileNotFoundError: [Errno 2] No such file",
  ),
}


@pytest.mark.parametrize("kind", FAILING)
def test_a_file_that_fails_is_named_with_the_line(kind, tmp_path):
  body, expected = FAILING[kind]
  path = tmp_path / "failing.py"
  path.write_text(
    f'from configs import dates\n\ndef get_config(arg=""):\n{body}\n'
  )
  message = refused(str(path))
  assert message.startswith(f"{path}, ")
  assert expected in message


def test_an_error_in_a_file_of_configs_is_named_there(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
    "from configs import dates\n"
    'def get_config(arg=""):\n'
    '  return dates.get_config("fast")\n'
  )
  assert "configs/dates.py, line " in refused(str(path))


@pytest.mark.parametrize(
  ("text", "variant", "expected"),
  [
    ("x = 1", "", "has no get_config()"),
    ("def get_config(): pass", ":smoke", "no variant; leave :smoke out"),
    ("def get_config(arg): pass", "", "takes a variant; add it, as :name"),
  ],
)
def test_a_file_of_another_kind(text, variant, expected, tmp_path):
  path = tmp_path / "other.py"
  path.write_text(f"{text}\n")
  assert expected in refused(f"{path}{variant}")


def test_a_wrong_variant_is_told_the_right_ones():
  assert refused("configs/dates.py:smok") == "the variants are: smoke"


def test_what_an_exception_says_is_bounded(tmp_path):
  path = tmp_path / "long.py"
  path.write_text('def get_config():\n  raise OSError("x" * 100_000)\n')
  assert len(refused(str(path))) < 1000


def test_a_right_file_and_a_refusal_of_another_flag_pass():
  read("configs/dates.py:smoke")
  with pytest.raises(Refusal, match="--workdir is missing"):
    with config_file.reading("configs/dates.py"):
      raise Refusal("--workdir is missing")
