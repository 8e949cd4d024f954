"""An example is truncated, started and ended as stated."""

import pytest

from data.examples import make_example, truncate

START, END = 101, 102


def _make(source, target, **changes):
  settings = {
    "start_id": START,
    "end_id": END,
    "max_source_length": 8,
    "max_target_length": 6,
  }
  return make_example(source, target, **settings | changes)


def test_end_is_added_where_the_tokenizer_does_not():
  assert _make([1], [5, 6]).target.tolist() == [5, 6, END]
  assert _make([1], [5, 6, END]).target.tolist() == [5, 6, END]
  assert _make([1], []).target.tolist() == [END]


def test_leading_start_is_dropped_and_only_there():
  assert _make([1], [START, 5, END]).target.tolist() == [5, END]
  assert _make([1], [5, START]).target.tolist() == [5, START, END]
  assert _make([1], [START, START, 5]).target.tolist() == [START, 5, END]


def test_start_that_equals_end():
  example = _make([1], [END, 5], start_id=END)
  assert example.target.tolist() == [5, END]
  assert _make([1], [END], start_id=END).target.tolist() == [END]


def test_truncated_target_keeps_no_end():
  whole = _make([1], [1, 2, 3, 4, 5])
  assert whole.target.tolist() == [1, 2, 3, 4, 5, END]
  assert not whole.truncated_target
  for ids in ([1, 2, 3, 4, 5, 6], [START, 1, 2, 3, 4, 5, 6, END]):
    cut = _make([1], ids)
    assert cut.target.tolist() == [1, 2, 3, 4, 5, 6]
    assert cut.truncated_target


def test_truncated_source_keeps_its_special_tokens():
  cut = _make([7, *range(20), 9], [1], source_suffix=(9,))
  assert cut.source.tolist() == [7, 0, 1, 2, 3, 4, 5, 9]
  assert cut.truncated_source
  whole = _make([7, 0, 9], [1], source_suffix=(9,))
  assert whole.source.tolist() == [7, 0, 9] and not whole.truncated_source


def test_truncation_without_room_is_refused():
  with pytest.raises(ValueError, match=r"maximum length of 1 .*raise"):
    truncate([1, 2, 3], 1, (3,))
