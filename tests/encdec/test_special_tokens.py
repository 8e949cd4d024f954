"""Special ids: precedence, fallbacks, and errors that say what to set."""

import numpy as np
import pytest

from encdec.special_tokens import (
  SpecialTokens,
  TokenSource,
  resolve_special_tokens,
  token_source,
)

ALL = TokenSource("config.json", start=1, end=2, pad=3)


def test_the_first_source_wins_for_each_id_alone():
  call = TokenSource("the call", end=7)
  found = resolve_special_tokens([call, ALL])
  assert (found.start, found.end, found.pad) == (1, (7,), 3)
  assert found.where == {
    "start": "config.json",
    "end": "the call",
    "pad": "config.json",
  }
  assert "7  from the call" in found.table()


def test_zero_is_an_id():
  found = resolve_special_tokens([TokenSource("x", start=0, end=0, pad=0), ALL])
  assert (found.start, found.end, found.pad) == (0, (0,), 0)


def test_several_end_tokens_are_kept_and_an_empty_list_is_none():
  found = resolve_special_tokens([TokenSource("x", end=[]), ALL])
  assert found.end == (2,)
  found = resolve_special_tokens([TokenSource("x", end=[5, 6]), ALL])
  assert found.end == (5, 6)


def test_bos_starts_and_the_end_token_pads_when_nothing_else_does():
  found = resolve_special_tokens(
    [TokenSource("the call", end=[8, 9])], bos=("the decoder's config", 4)
  )
  assert (found.start, found.pad) == (4, 8)
  assert "bos_token_id" in found.where["start"]
  assert found.where["pad"] == "the end token, the call"
  # A source that sets them goes before both.
  found = resolve_special_tokens([ALL], bos=("the decoder's config", 4))
  assert (found.start, found.pad) == (1, 3)


@pytest.mark.parametrize(
  ("source", "message"),
  [
    (TokenSource("config.json", end=2), "start token.*decoder_start_token_id"),
    (TokenSource("config.json", start=1), "end token.*eos_token_id"),
  ],
)
def test_a_missing_id_names_what_to_set(source, message):
  with pytest.raises(ValueError, match=message):
    resolve_special_tokens([source])


def test_the_error_speaks_the_callers_words():
  with pytest.raises(ValueError, match=r"looked in: a, b.*model\.end_token"):
    resolve_special_tokens(
      [TokenSource("a", start=1), TokenSource("b")],
      setting={"start": "", "end": "model.end_token", "pad": ""},
    )


def test_an_id_that_is_not_needed_may_be_missing():
  found = resolve_special_tokens([TokenSource("x", start=1)], need=())
  assert (found.start, found.end, found.pad) == (1, (), None)
  assert SpecialTokens.from_dict(found.as_dict()) == found


@pytest.mark.parametrize("value", [-1, 1.5, "3", True, [1]])
def test_what_is_no_id_is_refused(value):
  source = token_source("config.json", {"pad_token_id": value})
  with pytest.raises(ValueError, match=r"pad token in config\.json"):
    resolve_special_tokens([source, ALL])


def test_hub_names_are_read_and_null_is_absent():
  source = token_source(
    "config.json",
    {"decoder_start_token_id": np.int64(5), "pad_token_id": None},
  )
  found = resolve_special_tokens([source, ALL])
  assert (found.start, found.end, found.pad) == (5, (2,), 3)
  assert type(found.start) is int
