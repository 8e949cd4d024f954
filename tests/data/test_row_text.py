"""What is printed of a row is all that its arrays hold."""

import itertools

import numpy as np
import pytest

from data import row_text
from data.collate import collate
from data.examples import Example, Tokens

TOKENS = Tokens(start=0, end=0, source_pad=0, target_pad=0)


@pytest.fixture
def batch(wordpiece, bpe):
  """A row of two pairs, and an empty one."""
  sources = wordpiece.encode_batch(["Apple is a boat", "cloud number 7"])
  targets = [[*ids, 0] for ids in bpe.encode_batch(["the\nboat " * 9, "7"])]
  pairs = [
    collate(
      [Example(np.array(s, np.int32), np.array(t, np.int32))],
      shape=(len(s), len(t)),
      tokens=TOKENS,
    )
    for s, t in zip(sources, targets, strict=True)
  ]
  # Side by side, as segments 1 and 2, with padding behind them.
  arrays = {}
  for name in pairs[0]:
    one, two = (pair[name][0].copy() for pair in pairs)
    if name.endswith("segments"):
      two *= 2
    row = np.concatenate([one, two, np.zeros(5, one.dtype)])
    arrays[name] = np.stack([row, np.zeros_like(row)])
  return arrays, len(one)


def _values(text: str, name: str) -> list[str]:
  lines = [line for line in text.splitlines() if line.startswith(name)]
  return [cell for line in lines for cell in line.removeprefix(name).split()]


def test_every_array_is_shown_whole(batch, wordpiece, bpe):
  arrays, _ = batch
  text = row_text.row_text(arrays, 0, wordpiece, bpe)
  for name, values in arrays.items():
    shown = [float(cell) for cell in _values(text, f"{name} ")]
    assert shown == values[0][:-5].tolist()
  assert text.count("and 5 positions of padding") == 2
  assert all(len(line) <= 100 for line in text.splitlines()[4:])


def test_tokens_stand_under_their_ids(batch, wordpiece, bpe):
  arrays, _ = batch
  lines = row_text.row_text(arrays, 0, wordpiece, bpe).splitlines()
  tokenizers = {
    "encoder_tokens": wordpiece,
    "decoder_inputs": bpe,
    "decoder_targets": bpe,
  }
  checked = 0
  for line, below in itertools.pairwise(lines):
    name, *ids = line.split() or [""]
    if name in tokenizers:
      strings = tokenizers[name].token_strings([int(i) for i in ids])
      assert below.split() == strings
      for i, string in zip(ids, strings, strict=True):
        # Both end in the same column.
        assert f" {string}" in below and f" {i}" in line
      ends = [_ends(each) for each in (line[20:], below[20:])]
      assert ends[0] == ends[1]
      checked += 1
  assert checked >= 4


def _ends(line: str) -> list[int]:
  padded = f"{line} "
  return [
    i for i in range(len(line)) if padded[i] != " " and padded[i + 1] == " "
  ]


def test_texts_of_each_pair_of_a_row(batch, wordpiece, bpe):
  arrays, _ = batch
  lines = row_text.row_text(arrays, 0, wordpiece, bpe).splitlines()
  assert lines[0] == "source 1: apple is a boat"
  assert lines[1] == "source 2: cloud number 7"
  assert lines[2].startswith("target 1: the boat the boat")
  assert lines[3] == "target 2: 7"


def test_a_row_without_pairs(batch, wordpiece, bpe):
  arrays, _ = batch
  text = row_text.row_text(arrays, 1, wordpiece, bpe)
  sizes = [len(arrays[f"{end}_segments"][1]) for end in ("encoder", "decoder")]
  for size in sizes:
    assert f"and {size} positions of padding" in text


def test_what_cannot_be_printed_is_written_out():
  assert row_text._visible("a\n\x1b[2J\u2028é") == "a\\n\\x1b[2J\\u2028é"
