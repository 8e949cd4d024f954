"""The command line: overrides, paths and words that are none."""

import re

import pytest

from configs import common
from train.cli import command_line
from train.errors import Refusal


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


def test_a_right_override_passes():
  command_line.check_overrides(
    ["--config.optim.lr=1e-4", "--noconfig.eval.permute_sources"],
    common.get_config(),
  )


def test_a_word_that_is_no_flag_is_refused():
  with pytest.raises(Refusal, match=r"'optim\.lr=3' is not a flag"):
    command_line.check_arguments(["optim.lr=3"])


@pytest.mark.parametrize(
  ("argument", "takes"),
  [
    ("--config.train.steps=3,4", "one whole number; the config has 1000"),
    ("--config.train.steps=[3,4]", "one whole number"),
    ("--config.train.steps=many", "one whole number"),
    ("--config.train.steps=3.5", "one whole number"),
    ("--config.train.steps=True", "one whole number"),
    ("--config.train.steps=", "one whole number"),
    ("--config.train.steps", "one whole number"),
    ("--noconfig.train.steps", "one whole number"),
    ("--config.optim.lr=fast", "one number; the config has 0.0001"),
    ("--config.optim.lr=1,2", "one number"),
    ("--config.eval.permute_sources=yes", "True or False; the config has Fal"),
    ("--noconfig.eval.permute_sources=True", "True or False"),
    ("--config.model.encoder=('a','b')", "one text; the config has ''"),
    ("--config.model.encoder_layers=(0,1", "a list with commas, such as"),
  ],
)
def test_a_value_of_another_type_is_refused(argument, takes):
  key = argument.partition("config.")[2].partition("=")[0]
  with pytest.raises(Refusal) as caught:
    command_line.check_overrides([argument], common.get_config())
  assert str(caught.value).startswith(f"{argument}: {key} takes {takes}")


@pytest.mark.parametrize(
  "argument",
  [
    "--config.train.steps=3",
    "--config.optim.lr=3",
    "--config.optim.lr=1e-4",
    "--config.eval.permute_sources",
    "--config.eval.permute_sources=false",
    "--noconfig.eval.permute_sources",
    "--config.model.encoder_layers=0,1",
    "--config.model.encoder_layers=[0, 1]",
    "--config.model.encoder_layers=()",
    "--config.sharding.mlp=tensor",
    "--config.data.train=0.7*dates@train,0.3*dates@valid[:5]",
    "--config.data.train=",
    "--config.model.encoder=123",
    """--config.generation.options={"repetition_penalty": 1.2}""",
    """--config.generation.options={"repetition_penalty": null}""",
  ],
)
def test_a_value_of_its_type_passes(argument):
  command_line.check_overrides([argument], common.get_config())


def test_a_section_is_no_key():
  with pytest.raises(Refusal, match=r"=3: model is a section: write --config"):
    command_line.check_overrides(["--config.model=3"], common.get_config())


def test_a_value_in_a_word_of_its_own_belongs_to_its_flag():
  words = "main.py --config c.py --config.seed 3 --config.optim.lr -1 --step=2"
  assert command_line.split(words.split()) == (
    ["--config.seed=3", "--config.optim.lr=-1"],
    "main.py --config c.py --step=2".split(),
    [],
  )
  words = "main.py --config.eval.permute_sources --step=2 -- --config.seed=3"
  assert command_line.split(words.split()) == (
    ["--config.eval.permute_sources"],
    ["main.py", "--step=2"],
    ["--", "--config.seed=3"],
  )


def test_the_last_value_of_a_flag_counts():
  words = "main.py --config=a --config b --configs=c -step=1 --config.x=3"
  assert command_line.value_of("config", words.split()) == "b"
  assert command_line.value_of("step", words.split()) == "1"
  assert command_line.value_of("input", words.split()) == ""


@pytest.mark.parametrize(
  ("value", "quoted"),
  [
    ("eval.metrics=bleu,chrf", "eval.metrics=('bleu', 'chrf')"),
    ("eval.metrics=bleu, novel_2", "eval.metrics=('bleu', 'novel_2')"),
    ("eval.metrics=bleu", "eval.metrics=('bleu',)"),
    (
      "model.lora_targets=*/query,*/out",
      "model.lora_targets=('*/query', '*/out')",
    ),
    (
      "optim.groups=*/mlp/*: lr_scale=2, b1=0.5; encoder/*: frozen=true",
      "optim.groups=('*/mlp/*: lr_scale=2, b1=0.5', 'encoder/*: frozen=true')",
    ),
    ("optim.groups=", "optim.groups="),
    ("model.encoder_layers=()", "model.encoder_layers=()"),
    ("eval.metrics=('bleu','chrf')", "eval.metrics=('bleu','chrf')"),
    ("model.encoder_layers=0,1", "model.encoder_layers=0,1"),
    # No list: a mixture may have commas too.
    ("data.train=a,b", "data.train=a,b"),
  ],
)
def test_bare_names_make_a_list(value, quoted):
  config = common.get_config()
  got = command_line.quote_names(f"--config.{value}", config)
  assert got == f"--config.{quoted}"
  command_line.check_overrides([f"--config.{value}"], config)


def test_a_file_of_predictions_needs_no_workdir():
  config = common.get_config()
  modes = ("train", "eval")
  command_line.check_flags(config, "", "eval", modes, ["predictions"])
  with pytest.raises(Refusal, match="--workdir is missing"):
    command_line.check_flags(config, "", "eval", modes)
  with pytest.raises(Refusal, match="--step is not used with --predictions"):
    command_line.check_flags(config, "", "eval", modes, ["step", "predictions"])
