"""Packed rows hold every pair once, whole, in the first row with room."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import packing
from data.permutation import epoch_key, feistel

SHAPE = (16, 6)


def _arrays(pairs):
  source, target = np.array(pairs, np.int64).T
  return source.copy(), target.copy()


def _lists(rows):
  return [
    rows.pairs[a:b].tolist()
    for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)
  ]


def _slow(source, target, seed, window):
  """First-fit as the textbook says it, a pair and a row at a time."""
  size = len(source)
  order = feistel(np.arange(size), size, epoch_key(seed, 1 << 63))
  count, result = -(-size // window), []
  for w in range(count):
    rows = []
    for pair in order[w * size // count : (w + 1) * size // count].tolist():
      for row in rows:
        if all(
          sum(int(lengths[i]) for i in [*row, pair]) <= room
          for lengths, room in zip((source, target), SHAPE, strict=True)
        ):
          row.append(pair)
          break
      else:
        rows.append([pair])
    result += rows
  return result


# One token, exactly full, and all between.
pairs_lists = st.lists(
  st.tuples(st.integers(1, 16), st.integers(1, 6)), min_size=1, max_size=60
)


@given(pairs_lists, st.integers(0, 9), st.integers(1, 30), st.integers(1, 3))
def test_rows_are_those_of_first_fit(pairs, seed, window, sweep):
  source, target = _arrays(pairs)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(packing, "_SWEEP", sweep)
    patch.setattr(packing, "_PACKED_TOGETHER", 2)
    rows = packing.pack(source, target, shape=SHAPE, seed=seed, window=window)
  assert _lists(rows) == _slow(source, target, seed, window)
  assert sorted(rows.pairs.tolist()) == list(range(len(pairs)))
  for row in _lists(rows):
    assert row and source[row].sum() <= 16 and target[row].sum() <= 6
  full = packing.fill(len(rows), source, target, SHAPE)
  assert full.source == source.sum() / (16 * len(rows))
  assert full.target == target.sum() / (6 * len(rows))
  assert full.pairs_per_row == len(pairs) / len(rows)


def test_rows_have_golden_values():
  source = feistel(np.arange(24), 24, 5) % 13 + 1
  target = feistel(np.arange(24), 24, 6) % 5 + 1
  rows = packing.pack(source, target, shape=SHAPE, seed=3, window=12)
  assert _lists(rows) == [
    [4, 3],
    [22],
    [21, 5],
    [8, 23],
    [17, 12],
    [1],
    [14],
    [19],
    [7, 6],
    [10, 11],
    [2, 20],
    [18, 15],
    [16, 13],
    [9],
    [0],
  ], (
    "the packing has changed, so every run that resumes would see other "
    "batches: raise packing._FORMAT with it"
  )


def test_seed_and_window_decide_the_rows():
  source, target = _arrays([(i % 15 + 1, i % 5 + 1) for i in range(300)])
  one, same, seed, window = (
    _lists(packing.pack(source, target, shape=SHAPE, seed=s, window=w))
    for s, w in ((0, 99), (0, 99), (1, 99), (0, 300))
  )
  assert one == same and one != seed and one != window
  # A longer window leaves fewer rows half empty.
  assert len(window) < len(one)


@pytest.mark.parametrize(
  ("pair", "message"),
  [
    (
      (17, 1),
      "pair 1 has 17 source tokens, a packed row 16: raise data.pack_s",
    ),
    ((1, 7), "pair 1 has 7 target tokens, a packed row 6: raise data.pack_t"),
    ((0, 1), "pair 1 has no source token"),
    ((1, 0), "pair 1 has no target token"),
  ],
)
def test_a_pair_that_no_row_holds_is_refused(pair, message):
  source, target = _arrays([(16, 6), pair, (1, 1)])
  with pytest.raises(ValueError, match=message):
    packing.pack(source, target, shape=SHAPE, seed=0)


def test_no_pairs_are_refused():
  none = np.zeros(0, np.int64)
  with pytest.raises(ValueError, match="no pairs"):
    packing.pack(none, none, shape=SHAPE, seed=0)


@pytest.fixture
def lengths():
  return _arrays([(i % 15 + 1, i % 5 + 1) for i in range(90)])


def _stored(lengths, folder, **changes):
  facts = {"shape": SHAPE, "seed": 0, "fingerprint": "a"}
  return packing.stored_rows(*lengths, folder=folder, **facts | changes)


def test_rows_are_kept_beside_the_pairs(lengths, tmp_path, monkeypatch):
  made = _stored(lengths, None)
  kept = _stored(lengths, tmp_path)
  monkeypatch.setattr(packing, "pack", None)
  read = _stored(lengths, tmp_path)
  for rows in (kept, read):
    np.testing.assert_array_equal(rows.offsets, made.offsets)
    np.testing.assert_array_equal(rows.pairs, made.pairs)
    assert isinstance(rows.pairs, np.memmap)
  [path] = tmp_path.iterdir()
  assert path.suffix == ".npy"


def test_rows_that_are_sent_are_mapped_there(lengths, tmp_path):
  for folder in (None, tmp_path):
    rows = _stored(lengths, folder)
    sent = pickle.dumps(rows)
    # The arrays themselves travel where no file holds them.
    assert (len(sent) < rows.pairs.nbytes) == bool(folder)
    again = pickle.loads(sent)
    assert isinstance(again.pairs, np.memmap) == bool(folder)
    assert again.facts == rows.facts
    np.testing.assert_array_equal(again.offsets, rows.offsets)
    np.testing.assert_array_equal(again.pairs, rows.pairs)


def test_other_facts_have_other_files(lengths, tmp_path):
  for changes in (
    {},
    {"seed": 1},
    {"shape": (17, 6)},
    {"fingerprint": "b"},
  ):
    _stored(lengths, tmp_path, **changes)
  assert len(list(tmp_path.iterdir())) == 4


def test_a_write_that_fails_leaves_no_rows(lengths, tmp_path, monkeypatch):
  def fail(*args):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"rows-\w+\.npy cannot be .*No space"):
      _stored(lengths, tmp_path)
  assert not list(tmp_path.iterdir())
  assert len(_stored(lengths, tmp_path)) == len(_stored(lengths, None))


def _flip(raw):
  raw[len(raw) // 2] ^= 4
  return raw


@pytest.mark.parametrize(
  "damage",
  [
    _flip,
    lambda raw: raw[:-8],
    lambda raw: raw[: len(raw) // 4],
    lambda raw: raw[:5],
    lambda raw: b"",
    lambda raw: raw.replace(b"<i8", b"|O8"),
  ],
)
def test_a_damaged_file_is_named(lengths, tmp_path, damage):
  _stored(lengths, tmp_path)
  [path] = tmp_path.iterdir()
  path.write_bytes(damage(bytearray(path.read_bytes())))
  with pytest.raises(ValueError, match=rf"{path.name} is damaged .*delete it"):
    _stored(lengths, tmp_path)
