"""Errors of the library, with the names of a configuration."""

import pytest

from train.setting_names import naming


def test_a_keyword_becomes_the_key_that_was_given_for_it():
  error = ValueError("share='all': the sides differ; or use share='none'")
  with pytest.raises(ValueError) as caught:
    with naming(share="model.share"):
      raise error
  assert str(caught.value) == (
    "model.share = 'all': the sides differ; or use model.share = 'none'"
  )
  assert caught.value.__cause__ is error


def test_other_names_that_end_alike_stay():
  error = ValueError("num_share=3, model.share='all'")
  with pytest.raises(ValueError) as caught:
    with naming(share="model.share"):
      raise error
  assert caught.value is error


def test_a_key_and_its_value_stand_before_what_names_neither():
  error = OSError("hidden_size=3 is no multiple of 2")
  with pytest.raises(ValueError, match=r"^model\.encoder = 'a/b': hidden"):
    with naming("model.encoder", "a/b"):
      raise error
  with pytest.raises(ValueError, match=r"^model\.encoder: a/b holds none$"):
    with naming("model.encoder", "a/b"):
      raise ValueError("a/b holds none")
  with pytest.raises(ValueError, match=r"^data\.train: no such file$"):
    with naming("data.train"):
      raise FileNotFoundError("no such file")


def test_an_error_that_names_the_key_is_left_alone():
  error = FileNotFoundError("data.store = 'x': fix it")
  with pytest.raises(FileNotFoundError) as caught:
    with naming("data.store", "x"):
      raise error
  assert caught.value is error


def test_a_bug_stays_a_bug():
  with pytest.raises(TypeError, match="x"):
    with naming("model.encoder", "y"):
      raise TypeError("x")
