"""Options that contradict each other are refused, by their users' names."""

import dataclasses

import jax.numpy as jnp
import pytest

from encdec.generation.search.options import (
  ScoreRules,
  SearchOptions,
  SequenceBias,
  check,
)


def test_word_trigrams_need_beams():
  options = SearchOptions(
    jnp.int32(9),
    jnp.int32(0),
    rules=ScoreRules(word_starts=jnp.ones((6,), bool)),
  )
  with pytest.raises(ValueError, match="word_starts drops beams"):
    check(options, 6)
  check(dataclasses.replace(options, num_beams=2), 6)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num_beams": 0}, "num_beams=0, num_beam_groups=1 and"),
    ({"num_beams": 7}, "num_beams=7 exceeds the vocabulary of 6"),
    ({"num_beams": 2, "num_returned": 3}, "=3 exceeds num_beams=2"),
    ({"num_returned": 2}, "greedy search finds one text"),
    ({"num_beams": 3, "num_groups": 2}, "is no multiple of num_beam_groups=2"),
    (
      {"num_beams": 4, "num_groups": 2, "sample": True},
      "num_beam_groups > 1 takes do_sample=False",
    ),
    ({"diversity_penalty": jnp.ones(())}, "needs num_beam_groups > 1"),
    ({"length_penalty": jnp.float32(jnp.inf)}, "length_penalty=inf is no"),
    ({"length_penalty": jnp.float32(-50)}, "scores of up to 9 tokens"),
    ({"early_stopping": "often"}, "'often' is not one of false, true, never"),
    ({"scoring": "bleu"}, "scoring='bleu' is not one of pytorch, gnmt"),
  ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
  good = SearchOptions(jnp.int32(9), jnp.int32(0))
  check(good, 6)
  with pytest.raises(ValueError, match=message):
    check(dataclasses.replace(good, **options), 6)


def test_as_many_texts_grow_as_there_are_beams_or_samples():
  options = SearchOptions(jnp.int32(9), jnp.int32(0), sample=True)
  assert options.width == 1
  assert dataclasses.replace(options, num_returned=3).width == 3
  beams = dataclasses.replace(options, num_beams=4, num_returned=3)
  assert beams.width == 4


def test_rules_say_what_they_change():
  bias = SequenceBias(jnp.zeros((6,)))
  one = jnp.ones((1,), jnp.int32)
  longer = SequenceBias(jnp.zeros((6,)), ((one[None], one, jnp.ones((1,))),))
  for rules, are_set, by_row in (
    (ScoreRules(), False, False),
    (ScoreRules(no_repeat_ngram_size=2), True, False),
    (ScoreRules(min_length=jnp.int32(0)), True, False),
    (ScoreRules(sequence_bias=bias), True, False),
    (ScoreRules(bad_words=longer), True, True),
    (ScoreRules(repetition_penalty=jnp.float32(1.0)), True, True),
    (ScoreRules(custom=(lambda *_: _[-1],)), True, True),
  ):
    assert (rules.are_set, rules.by_row) == (are_set, by_row), rules
