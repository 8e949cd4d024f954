"""Bad input gets one error that names the key, its value and the fix."""

import pytest

from configs import common, dates
from train import validate
from train.errors import Refusal


def refused(config, *parts):
  with pytest.raises(Refusal) as caught:
    validate.check_values(config)
  for part in parts:
    assert part in str(caught.value)


def test_the_dates_config_passes():
  validate.check_values(dates.get_config())


def test_an_empty_config_says_what_to_set():
  refused(common.get_config(), "model.encoder is empty", "bert:tiny")


@pytest.mark.parametrize(
  ("key", "value", "fix"),
  [
    ("model.encoder_init", "pretraind", "pretrained, random"),
    ("model.encoder_init", "pretrained", "set it to 'random'"),
    ("model.dtype", "float16", "float32, bfloat16"),
    ("model.dropout", 1.0, "below 1"),
    ("model.init_std", 0.0, "above 0"),
    ("data.on_bad_record", "ignore", "error, skip"),
    ("data.packing", "packed", "none, bucket, pack"),
    ("data.pack_source_length", -1, "between"),
    ("data.prepare_workers", -1, "between"),
    ("optim.name", "adamm", "adamw"),
    ("optim.schedule", "step", "cosine"),
    ("generation.num_beams", -1, "between"),
    ("generation.early_stopping", "often", "false, true, never"),
    ("generation.scoring", "t5", "pytorch, gnmt"),
    ("generation.block_trigrams", True, "num_beams"),
    ("optim.b2", 1.0, "lie in [0, 1)"),
    ("train.rng", "rbg", "threefry, unsafe_rbg"),
    ("train.steps", 0, "between"),
    ("train.keep_last", 0, "between"),
    ("train.best_mode", "least", "min, max"),
    ("train.accumulate_steps", 7, "multiple"),
    ("train.patience_evaluations", -1, "between"),
    ("eval.metrics", ("rogue",), "did you mean 'rouge'"),
    ("eval.rouge_sentences", "punkt", "lines, split"),
    ("eval.bleu_tokenize", "flores200", "13a, intl, char, zh, none"),
    ("optim.warmup_steps", 10_000, "lower it"),
    ("generation.min_length", 40, "lower it"),
    ("data.source_buckets", (16, 32), "same length"),
    ("generation.max_length", 1, "start token alone"),
    ("seed", -1, "between"),
    ("model.attention", "flash", "auto, short, splash, cudnn, xla"),
    ("model.init_std", float("nan"), "above 0"),
    ("model.init_std", float("inf"), "above 0"),
    ("data.eval", ",", "valid=pydoc@valid"),
    ("data.test", ", ,", "valid=pydoc@valid"),
  ],
)
def test_a_wrong_value_is_refused_with_its_fix(key, value, fix):
  config = dates.get_config()
  config.update_from_flattened_dict({key: value})
  refused(config, key, str(value), fix)


def test_buckets_must_end_at_the_maximum_lengths():
  config = dates.get_config()
  config.data.max_source_length, config.data.max_target_length = 32, 16
  config.data.target_buckets = (16, 16)
  for buckets in ((16, "32"), (16, 32.0), (0, 32), ("16,32", "32")):
    config.data.source_buckets = buckets
    refused(config, f"data.source_buckets = {buckets}: give whole numbers")
  config.data.source_buckets = (16, 24)
  config.data.target_buckets = (16, 16)
  refused(config, "data.source_buckets", "data.max_source_length = 32")
  config.data.source_buckets = (16, 32)
  config.data.target_buckets = (16, 8)
  refused(config, "no bucket has both maximum lengths")
  config.data.target_buckets = (8, 16)
  validate.check_values(config)


@pytest.mark.parametrize("key", ["data.eval", "data.test"])
def test_a_wrong_set_is_named_by_its_key(key):
  config = dates.get_config()
  config.update_from_flattened_dict({key: "valid=nope@valid"})
  with pytest.raises(ValueError, match=rf"^{key} = '.*'nope' is no scheme"):
    validate.check_values(config)


def test_a_wrong_remat_is_named_by_its_key():
  config = dates.get_config()
  config.model.remat = "qkv+all"
  with pytest.raises(ValueError, match=r"^model\.remat = 'qkv\+all': 'all' is"):
    validate.check_values(config)


def test_a_set_must_not_take_the_name_of_a_permuted_one():
  config = dates.get_config()
  config.data.test = "a=dates@valid,a_permuted=dates@test"
  config.eval.permute_sources = False
  validate.check_values(config)
  config.eval.permute_sources = True
  refused(config, "data.test", "'a_permuted'", "another name")


def test_the_best_metric_is_one_that_is_measured():
  config = dates.get_config()
  config.data.eval = "a=dates@valid,b=dates@test"
  config.train.best_metric, config.train.best_mode = "eval/b/bleu", "max"
  refused(config, "train.best_metric = 'eval/b/bleu' is not measured; did you")
  config.eval.metrics = ("bleu", "ter", "copy_rate")
  validate.check_values(config)
  config.eval.text_examples = -1
  refused(config, "'eval/b/bleu' is not measured")


@pytest.mark.parametrize(
  ("metric", "better"),
  [("loss", "min"), ("accuracy", "max"), ("ter", "min"), ("bleu", "max")],
)
def test_the_worst_step_is_not_kept(metric, better):
  config = dates.get_config()
  config.eval.metrics = ("bleu", "ter", "novel_2")
  config.train.best_metric = f"eval/valid/{metric}"
  config.train.best_mode = better
  validate.check_values(config)
  config.train.best_mode = {"min": "max", "max": "min"}[better]
  refused(config, f"keeps the worst eval/valid/{metric}: set it to '{better}'")
  # Of others whoever asks knows what is better.
  config.train.best_metric = "eval/valid/novel_2"
  validate.check_values(config)


def test_patience_needs_evaluations():
  config = dates.get_config()
  config.train.patience_evaluations = 3
  validate.check_values(config)
  config.train.eval_every_steps = 0
  refused(config, "train.patience_evaluations = 3, but train.eval_every_steps")
