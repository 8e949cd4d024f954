"""Trained tokenizers: of their texts, of a size, the same every time."""

import pytest

from data.tokenizers import training

from ..conftest import TEXTS


def test_sizes(wordpiece, bpe):
  assert wordpiece.vocab_size <= 200 and bpe.vocab_size <= 300
  assert bpe.vocab_size > 257
  # A corpus with more letters than the vocabulary has room for.
  letters = ["".join(map(chr, range(0x4E00, 0x4E00 + 300)))]
  with pytest.raises(ValueError, match=r"vocabulary of 100 .*raise"):
    training.train_wordpiece(letters, 100)
  with pytest.raises(ValueError, match=r"vocabulary of 200 .*raise"):
    training.train_bpe(TEXTS, 200)
  with pytest.raises(ValueError, match="family 't5'"):
    training.train_bpe(TEXTS, 300, family="t5")


def test_training_is_deterministic_and_of_its_texts(wordpiece, bpe):
  again = training.train_wordpiece(iter(TEXTS), 200)
  assert again.fingerprint == wordpiece.fingerprint
  # Equal frequencies are what a hash table's order would decide.
  words = [f"{a}{b}{c}" for a in "abcd" for b in "efgh" for c in "ijkl"]
  prints = {training.train_wordpiece(words, 90).fingerprint for _ in range(5)}
  assert len(prints) == 1
  assert training.train_bpe(iter(TEXTS), 300).fingerprint == bpe.fingerprint
  other = training.train_bpe(TEXTS[::2] + ["zebra zoo"] * 50, 300)
  assert other.fingerprint != bpe.fingerprint
