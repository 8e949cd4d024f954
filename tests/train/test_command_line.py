"""The command line: overrides, paths and words that are none."""

import re

import pytest

from configs import common
from train import command_line
from train.validate import Refusal


@pytest.mark.parametrize(
  ("argument", "suggestion"),
  [
    ("--config.optim.lrr=1e-4", "optim.lr"),
    ("--config.optim.steps=3", "train.steps"),
    ("--config.training.batch_size=3", "train.batch_size"),
    ("--config.data.maxsource_length=3", "data.max_source_length"),
    ("--noconfig.eval.permute", "eval.permute_sources"),
  ],
)
def test_a_mistyped_override_gets_a_suggestion(argument, suggestion):
  assert command_line.OVERRIDE.match(argument)
  with pytest.raises(Refusal, match=rf"{re.escape(argument)}.*{suggestion}'"):
    command_line.check_overrides([argument], common.get_config())


def test_a_folder_must_not_be_a_file(tmp_path):
  (tmp_path / "file").write_text("")
  for path in (tmp_path / "file", tmp_path / "file/run"):
    with pytest.raises(Refusal, match=r"--workdir=.*file is a file; choose"):
      command_line.check_path("workdir", str(path))
  command_line.check_path("workdir", str(tmp_path / "new"))
  command_line.check_path("output", str(tmp_path / "file"))


@pytest.mark.parametrize("flag", ["workdir", "output"])
def test_a_bucket_is_refused(flag):
  with pytest.raises(Refusal, match=f"--{flag}=gs://b/run: .*mount"):
    command_line.check_path(flag, "gs://b/run")
  command_line.check_path(flag, "runs/a:b")


def test_a_right_override_passes():
  command_line.check_overrides(
    ["--config.optim.lr=1e-4", "--noconfig.eval.permute_sources"],
    common.get_config(),
  )


def test_a_word_that_is_no_flag_is_refused():
  with pytest.raises(Refusal, match=r"'optim\.lr=3' is not a flag"):
    command_line.check_arguments(["optim.lr=3"])
