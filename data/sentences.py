"""Sentences of a source, told apart by types that alternate (BertSum).

Liu and Lapata 2019: "[CLS] a sentence [SEP] [CLS] the next [SEP]", whose tokens
have the types 0 and 1 by turns.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from data.examples import Tokens
from data.tokenizers.tokenizer import Tokenizer


def encode_sources(
  tokenizer: Tokenizer, texts: Sequence[str], tokens: Tokens
) -> list[list[int]]:
  """Ids of each source, whole: of its text, or of its sentences."""
  if tokens.sentence_end is None:
    return tokenizer.encode_batch(texts)
  return encode_lines(tokenizer, texts)


def encode_lines(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
  """Ids of each text, whose lines have special tokens around them each.

  Lines without a token of their own are left out.
  """
  lines = [text.splitlines() for text in texts]
  every = [line for some in lines for line in some]
  encoded = iter(tokenizer.encode_batch(every))
  empty = len(tokenizer.prefix) + len(tokenizer.suffix)
  result = []
  for some in lines:
    sentences = [next(encoded) for _ in some]
    result.append([i for ids in sentences if len(ids) > empty for i in ids])
  return result


def types(ids: Int32[np.ndarray, " S"], end: int) -> Int32[np.ndarray, " S"]:
  """0 in the first sentence, 1 in the second, 0 in the third and so on.

  Args:
    end: the token that ends a sentence.
  """
  ends = (ids == end).astype(np.int32)
  # An end is of the sentence that it ends.
  return (np.cumsum(ends, dtype=np.int32) - ends) % 2
