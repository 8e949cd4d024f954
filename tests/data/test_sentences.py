"""Sentences of a source have special tokens and types by turns."""

import dataclasses

import numpy as np
import pytest

from data import sentences
from data.collate import abstract_batch, collate, collate_sources
from data.examples import Example, Tokens
from data.store.encoding import Encoding
from data.tokenizers import training

TEXTS = ["red blue green", "black white brown"]
PLAIN = Tokens(start=1, end=2, source_pad=0, target_pad=0)


@pytest.fixture(scope="module")
def tokenizer():
  return training.train_wordpiece(TEXTS * 9, 300)


def test_lines_are_sentences_with_special_tokens_each(tokenizer):
  cls, sep = tokenizer.cls_id, tokenizer.sep_id
  first, second = tokenizer.encode_batch(TEXTS)
  tokens = dataclasses.replace(PLAIN, sentence_end=sep)
  text = f"{TEXTS[0]}\n\n  \n{TEXTS[1]}\n"
  made = sentences.encode_sources(tokenizer, [text, "", "red"], tokens)
  assert made[0] == [*first, *second] and made[0].count(cls) == 2
  assert made[1] == [] and made[2][0] == cls and made[2][-1] == sep
  # Without an end of sentences a text is one piece, as ever.
  (whole,) = sentences.encode_sources(tokenizer, [text], PLAIN)
  assert whole == [*first[:-1], *second[1:]]


def test_types_alternate_with_each_end():
  ids = np.array([7, 1, 9, 7, 9, 7, 2, 3, 9, 7], np.int32)
  np.testing.assert_array_equal(
    sentences.types(ids, 9), [0, 0, 0, 1, 1, 0, 0, 0, 0, 1]
  )


def test_a_batch_has_types_only_where_sentences_end():
  pair = Example(np.array([7, 9, 7, 9], np.int32), np.array([5, 2], np.int32))
  tokens = dataclasses.replace(PLAIN, sentence_end=9)
  packed = {"shape": (10, 6), "rows": 2, "places": np.array([0, 0])}
  with_types = collate([pair, pair], tokens=tokens, **packed)
  types = with_types.pop("encoder_types")
  # Each pair of a row begins with type 0.
  np.testing.assert_array_equal(
    types, [[0, 0, 1, 1, 0, 0, 1, 1, 0, 0], [0] * 10]
  )
  assert types.dtype == np.int32
  without = collate([pair, pair], tokens=PLAIN, **packed)
  assert list(without) == list(with_types)
  for name, array in without.items():
    np.testing.assert_array_equal(array, with_types[name])
  alone = collate_sources([pair.source], length=6, pad_id=0, sentence_end=9)
  np.testing.assert_array_equal(alone["encoder_types"], [[0, 0, 1, 1, 0, 0]])
  assert abstract_batch((8, 6), 3, types=True)["encoder_types"].shape == (3, 8)
  assert "encoder_types" not in abstract_batch((8, 6), 3)


def test_a_set_without_types_is_the_one_that_it_was(tokenizer):
  """Its folder keeps its name; one with types has another."""
  plain = Encoding("source", "target", tokenizer, tokenizer, PLAIN, 40, 40)
  assert plain.facts["tokens"] == {
    "start": 1,
    "end": 2,
    "source_pad": 0,
    "target_pad": 0,
  }
  typed = dataclasses.replace(PLAIN, sentence_end=9)
  facts = dataclasses.replace(plain, tokens=typed).facts
  assert Tokens(**facts["tokens"]) == typed
