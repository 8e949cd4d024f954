"""Rothe et al.'s rows: sized as the paper counts, and each task trains each."""

import math

import jax
import pytest

from configs import rothe
from encdec.model import param_shapes
from encdec.sharding import leaf_path
from train import loop, validate
from train.setup.known_shapes import without_files
from train.setup.modules import preset_module

# Millions, as the paper and the Hub's post about it state them.
MILLIONS = {
  "rnd2rnd": 221,
  "rnd2bert": 221,
  "bert2rnd": 221,
  "rnd2gpt": 238,
  "bert2bert": 221,
  "bertshare": 136,
  "robertashare": 152,
  "bert2gpt": 260,
  "roberta2gpt": 276,
}
# The paper counts neither the pooler nor what stands between the last state
# and the vocabulary's matrix.
UNCOUNTED = ("encoder/pooler/", "decoder/head/")


@pytest.mark.parametrize("row", MILLIONS)
def test_a_row_has_the_papers_parameters(row):
  config = rothe.get_config(f"cnn_dailymail,{row}")
  config.model.vocab_multiple = 1
  shapes = param_shapes(preset_module(without_files(config)))
  leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
  counted = sum(
    math.prod(leaf.shape)
    for path, leaf in leaves
    if not leaf_path(path).startswith(UNCOUNTED)
  )
  assert counted // 1_000_000 == MILLIONS[row]


@pytest.mark.parametrize("row", ["robertashare_large", "bert2rnd_large"])
def test_a_large_row_is_large(row):
  config = rothe.get_config(f"wikisplit,{row}")
  module = preset_module(without_files(config))
  assert module.config.encoder.num_layers == module.config.decoder.num_layers
  assert module.config.encoder.num_layers == 24


@pytest.mark.parametrize("task", rothe.TASKS)
def test_every_task_has_every_row(task):
  for row in rothe.ROWS:
    for arg in (f"{task},{row}", f"smoke,{row},{task}"):
      validate.check_values(rothe.get_config(arg))


@pytest.mark.sample(1)
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("row", rothe.ROWS)
@pytest.mark.parametrize("task", rothe.TASKS)
def test_a_smoke_variant_trains_and_has_its_metrics(task, row, tmp_path):
  config = rothe.get_config(f"{task},{row},smoke")
  result = loop.run(config, str(tmp_path / "run"))
  assert math.isfinite(result[config.train.best_metric])


def test_a_task_is_measured_as_the_paper_measures_it():
  for name, task in rothe.TASKS.items():
    config = rothe.get_config(name)
    assert config.eval.lowercase == ("bleu" in task.metrics)
    form = "tensor2tensor" if "sari" in task.metrics else "authors"
    assert config.eval.sari_form == form
    sentences = "split" if "rouge" in task.metrics else "lines"
    assert config.eval.rouge_sentences == sentences


@pytest.mark.parametrize(
  "arg", ["cnn", "bert2bert,bert2rnd", "xsum,gigaword", "xsum,bert2bert,poof"]
)
def test_what_is_no_task_and_no_row_is_refused_in_a_line(arg):
  with pytest.raises(ValueError, match=f"rothe.py:{arg}: ") as refused:
    rothe.get_config(arg)
  said = str(refused.value)
  assert "\n" not in said
  assert all(name in said for name in (*rothe.TASKS, *rothe.ROWS))


def test_the_catalogue_has_the_data_sets():
  import tensorflow_datasets as tfds

  for task in rothe.TASKS.values():
    scheme, _, name = task.uri.partition("@")[0].partition(":")
    if scheme == "tfds":
      name, _, variant = name.partition("/")
      builder = tfds.builder_cls(name)
      known = [one.name for one in builder.BUILDER_CONFIGS]
      assert not variant or variant in known
