"""Pairs become the arrays of a batch by lengths alone."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from data.collate import abstract_batch, collate, collate_sources
from data.examples import Tokens, make_example

START, END = 101, 102


def _make(source, target, **changes):
  settings = {
    "start_id": START,
    "end_id": END,
    "max_source_length": 8,
    "max_target_length": 6,
  }
  return make_example(source, target, **settings | changes)


def test_an_abstract_batch_has_the_shapes_and_takes_no_memory():
  tokens = Tokens(start=START, end=END, source_pad=0, target_pad=0)
  batch = collate([_make([1], [2])], shape=(8, 6), tokens=tokens, rows=3)
  abstract = abstract_batch((8, 6), 3)
  assert [*abstract] == [*batch]
  for name, array in batch.items():
    assert abstract[name].shape == array.shape
    assert abstract[name].dtype == array.dtype
  # 4 TB a side, if it took them.
  assert abstract_batch((1024, 1024), 10**9)["encoder_tokens"].size > 10**12


def test_collate_lays_out_a_batch():
  tokens = Tokens(start=START, end=END, source_pad=0, target_pad=END)
  # Pad equals end, and the source holds a token equal to its pad.
  batch = collate(
    [_make([7, 0, 9], [5, 6]), _make([7], [])], shape=(4, 4), tokens=tokens
  )
  want = {
    "encoder_tokens": [[7, 0, 9, 0], [7, 0, 0, 0]],
    "encoder_segments": [[1, 1, 1, 0], [1, 0, 0, 0]],
    "encoder_positions": [[0, 1, 2, 0], [0, 0, 0, 0]],
    "decoder_inputs": [[START, 5, 6, END], [START, END, END, END]],
    "decoder_targets": [[5, 6, END, END], [END, END, END, END]],
    "decoder_segments": [[1, 1, 1, 0], [1, 0, 0, 0]],
    "decoder_positions": [[0, 1, 2, 0], [0, 0, 0, 0]],
    "decoder_weights": [[1, 1, 1, 0], [1, 0, 0, 0]],
  }
  assert {name: array.tolist() for name, array in batch.items()} == want
  kinds = {name: array.dtype for name, array in batch.items()}
  assert kinds.pop("decoder_weights") == np.float32
  assert set(kinds.values()) == {np.dtype(np.int32)}


def test_collate_packs_rows():
  tokens = Tokens(start=START, end=END, source_pad=0, target_pad=END)
  batch = collate(
    [_make([7, 9], [5]), _make([8], [6, 4]), _make([7], [])],
    shape=(4, 6),
    tokens=tokens,
    rows=3,
    places=np.array([0, 0, 2]),
  )
  none = [0, 0, 0, 0, 0, 0]
  want = {
    "encoder_tokens": [[7, 9, 8, 0], [0, 0, 0, 0], [7, 0, 0, 0]],
    "encoder_segments": [[1, 1, 2, 0], [0, 0, 0, 0], [1, 0, 0, 0]],
    "encoder_positions": [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    "decoder_inputs": [
      [START, 5, START, 6, 4, END],
      [END] * 6,
      [START, END, END, END, END, END],
    ],
    "decoder_targets": [[5, END, 6, 4, END, END], [END] * 6, [END] * 6],
    "decoder_segments": [[1, 1, 2, 2, 2, 0], none, [1, 0, 0, 0, 0, 0]],
    "decoder_positions": [[0, 1, 0, 1, 2, 0], none, none],
    "decoder_weights": [[1, 1, 1, 1, 1, 0], none, [1, 0, 0, 0, 0, 0]],
  }
  assert {name: array.tolist() for name, array in batch.items()} == want


def test_missing_rows_have_no_weight():
  tokens = Tokens(START, END, 0, 0)
  batch = collate([_make([7], [5])], shape=(2, 3), tokens=tokens, rows=3)
  assert batch["decoder_weights"].sum() == 2
  for name in ("encoder_segments", "decoder_segments", "decoder_weights"):
    assert not batch[name][1:].any() and batch[name][0].any(), name


def test_collate_refuses_what_does_not_fit():
  tokens = Tokens(START, END, 0, 0)
  example = _make([1, 2, 3], [5, 6])
  for shape, side in (((2, 9), "source of 3"), ((9, 2), "target of 3")):
    with pytest.raises(ValueError, match=side):
      collate([example], shape=shape, tokens=tokens)
  with pytest.raises(ValueError, match="2 examples"):
    collate([example] * 2, shape=(9, 9), tokens=tokens, rows=1)
  two = {"places": np.array([0, 0]), "rows": 1, "tokens": tokens}
  with pytest.raises(ValueError, match="source of 6"):
    collate([example] * 2, shape=(5, 9), **two)
  with pytest.raises(ValueError, match="target of 6"):
    collate([example] * 2, shape=(9, 5), **two)


def test_sources_alone_are_laid_out_as_in_a_batch():
  example = _make([7, 0, 9], [5])
  whole = collate([example], shape=(5, 5), tokens=Tokens(1, 2, 3, 4))
  alone = collate_sources([example.source], length=5, pad_id=3)
  for name, array in alone.items():
    np.testing.assert_array_equal(array, whole[name], err_msg=name)


ids = st.lists(st.integers(0, 120), max_size=12)


@hypothesis.given(st.lists(st.tuples(ids, ids), min_size=1, max_size=4))
def test_batches_by_property(pairs):
  examples = [_make(s or [1], t) for s, t in pairs]
  batch = collate(examples, shape=(8, 6), tokens=Tokens(START, END, 0, END))
  for row, example in enumerate(examples):
    length = len(example.target)
    inputs = batch["decoder_inputs"][row]
    assert inputs[0] == START
    assert (
      inputs[1:length] == batch["decoder_targets"][row, : length - 1]
    ).all()
    assert batch["decoder_weights"][row].sum() == length
    # The last token is the end with full weight, unless it was cut away.
    assert example.truncated_target or example.target[-1] == END
    assert batch["encoder_segments"][row].sum() == len(example.source)


@hypothesis.given(
  st.lists(st.tuples(ids, ids), min_size=1, max_size=6), st.integers(1, 6)
)
def test_a_packed_pair_is_laid_out_as_alone(pairs, rows):
  examples = [_make(s or [1], t) for s, t in pairs]
  places = np.sort(np.arange(len(pairs)) % rows)
  tokens = Tokens(START, END, 0, END)
  packed = collate(
    examples, shape=(48, 36), tokens=tokens, rows=rows, places=places
  )
  alone = collate(examples, shape=(8, 6), tokens=tokens)
  for index, place in enumerate(places):
    segment = index - int(np.searchsorted(places, place)) + 1
    for name, array in packed.items():
      side = name.split("_")[0]
      here = packed[f"{side}_segments"][place] == segment
      there = alone[f"{side}_segments"][index] == 1
      want = alone[name][index][there] * (segment if "segm" in name else 1)
      assert array[place][here].tolist() == want.tolist(), name
