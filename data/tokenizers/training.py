"""Tokenizers that are trained on texts."""

import json
from collections.abc import Iterable, Sequence

import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from data.tokenizers.tokenizer import Tokenizer


def train_wordpiece(
  texts: Iterable[str], vocab_size: int, keep_case: bool = False
) -> Tokenizer:
  """A BERT tokenizer with at most `vocab_size` tokens.

  Its texts are in lower case and without accents unless `keep_case`.
  """
  texts = list(texts)
  if not any(text.strip() for text in texts):
    raise ValueError(
      "a tokenizer is trained on texts, and all of them are blank: fix the "
      "file, or name another field by data.source_field or data.target_field"
    )
  backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
  backend.normalizer = normalizers.BertNormalizer(lowercase=not keep_case)
  backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  # The library numbers the single characters inside words as a hash table
  # gives them, which differs from run to run, and with the numbers the choice
  # among equally frequent pairs. As special tokens they are numbered in order.
  special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  special += [f"##{char}" for char in _inner_characters(backend, texts)]
  trainer = trainers.WordPieceTrainer(
    vocab_size=vocab_size, special_tokens=special, show_progress=False
  )
  backend.train_from_iterator(texts, trainer)
  _check_size(backend, vocab_size)
  vocab = backend.get_vocab()
  return Tokenizer(
    transformers.BertTokenizer(vocab=vocab, do_lower_case=not keep_case)
  )


def train_bpe(
  texts: Iterable[str], vocab_size: int, family: str = "gpt2"
) -> Tokenizer:
  """A byte-level BPE tokenizer with at most `vocab_size` tokens.

  `family` is "gpt2", whose one special token begins and ends, or "roberta",
  which puts <s> and </s> around a text.
  """
  families = {
    "gpt2": (transformers.GPT2Tokenizer, ["<|endoftext|>"]),
    "roberta": (
      transformers.RobertaTokenizer,
      ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    ),
  }
  if family not in families:
    raise ValueError(f"family {family!r}: choose one of {', '.join(families)}")
  cls, special = families[family]
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=special,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  backend.train_from_iterator(texts, trainer)
  _check_size(backend, vocab_size)
  model = json.loads(backend.to_str())["model"]
  merges = [tuple(merge) for merge in model["merges"]]
  return Tokenizer(cls(vocab=model["vocab"], merges=merges))


def _inner_characters(
  backend: tokenizers.Tokenizer, texts: Sequence[str]
) -> list[str]:
  """The characters that do not begin a word, in order."""
  # Each word once: most of a corpus is repetition.
  chunks = sorted({chunk for text in texts for chunk in text.split()})
  normal = backend.normalizer.normalize_str(" ".join(chunks))
  words = backend.pre_tokenizer.pre_tokenize_str(normal)
  return sorted({char for word, _ in words for char in word[1:]})


def _check_size(backend: tokenizers.Tokenizer, vocab_size: int) -> None:
  if backend.get_vocab_size() > vocab_size:
    raise ValueError(
      f"a vocabulary of {vocab_size} does not hold the "
      f"{backend.get_vocab_size()} single characters and special tokens: "
      "raise data.source_vocab_size or data.target_vocab_size"
    )
