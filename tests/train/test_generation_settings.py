"""Options of generation: the search gets them, or they are refused by key."""

import pytest

from train import generation_settings, start, validate
from train.errors import Refusal
from train.setup import trained
from train.setup.task import restore_task


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ("{", "is no JSON"),
    ("[1]", "no JSON object"),
    ('{"num_beams": 2}', "set generation.num_beams in place"),
    ('{"pad_token_id": 2}', "set model.pad_token in place"),
    ('{"temperature": 2.0}', "a run searches"),
    ('{"repetition_penalt": 2.0}', "did you mean 'repetition_penalty'"),
    ('{"encoder_no_repeat_ngram_size": 3}', "set it to null"),
  ],
)
def test_wrong_options_are_refused(tiny_config, options, message):
  tiny_config.generation.options = options
  with pytest.raises(Refusal, match=message) as caught:
    validate.check_values(tiny_config)
  assert "generation.options = " in str(caught.value)


def test_lengths_of_new_tokens_count_the_start_token(tiny_config):
  saved = {"max_new_tokens": 7, "max_length": 20, "min_new_tokens": 2}
  options = generation_settings.resolve(tiny_config, saved).options
  assert options["max_length"] == 8 and options["min_length"] == 3


def test_sampling_of_a_pair_is_told_and_not_done(tiny_config):
  saved = {"do_sample": True, "top_k": 5, "repetition_penalty": 1.1}
  settings = generation_settings.resolve(tiny_config, saved)
  assert settings.sampling == {"do_sample": True, "top_k": 5}
  assert settings.options["repetition_penalty"] == 1.1
  assert "do_sample" not in settings.options


@pytest.mark.parametrize(
  ("saved", "options", "key"),
  [
    ({"num_beam_groups": 2, "num_beams": 4}, "", r"generation\.options, in p"),
    ({}, '{"diversity_penalty": 0.5}', r"generation\.options: diversity_pen"),
    ({}, '{"num_beam_groups": 2}', r"generation\.options: num_beams=1"),
  ],
)
def test_options_that_contradict_each_other_are_refused_at_the_start(
  finished, saved, options, key
):
  config, folder, _ = finished
  task = restore_task(config, folder)
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.generation.num_beams = 1
    config.generation.options = options
  settings = generation_settings.resolve(config, saved)
  with pytest.raises(ValueError, match=key):
    generation_settings.search_options(settings, task.tokens, 100, None)


def test_an_option_reaches_the_search(finished, tmp_path):
  """A forced first token begins every text; without it none does."""
  config, folder, _ = finished
  config = config.copy_and_resolve_references()
  task = restore_task(config, folder)
  token = 40
  with config.unlocked():
    config.generation.options = f'{{"forced_bos_token_id": {token}}}'
  this = trained.load(config, str(folder), step=4)
  texts = {}
  for name, settings in (("forced", config), ("free", finished[0])):
    generator = start.Suite(
      settings, task, this.mesh, this.shardings, {}
    ).generator
    assert (generator.options.rules.forced_start is not None) == (
      name == "forced"
    )
    texts[name] = generator
  with config.unlocked():
    config.generation.options = '{"forced_bos_token_id": 4000}'
  with pytest.raises(ValueError, match=r"generation\.options: forced_bos"):
    start.Suite(config, task, this.mesh, this.shardings, {})
