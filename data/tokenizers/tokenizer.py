"""Tokenizers, of the Hub or of a folder, in their modes."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import transformers
from jaxtyping import Bool

from data.io.digests import text_digest
from data.io.error_text import clipped
from data.tokenizers import languages


class Tokenizer:
  """A Hugging Face tokenizer, as far as training needs one.

  With `target` it is in its target mode, if it has one: see `data.languages`.
  Several may have the same `inner`. `prefix` and `suffix` are the special
  tokens that it puts around a text. Ids of tokens that it does not have are
  None.
  """

  def __init__(self, inner: Any, *, target: bool = False):
    self.inner = inner
    self.target = target and languages.has_modes(inner)
    self.vocab_size: int = max(self._vocab().values()) + 1
    self.bos_id: int | None = inner.bos_token_id
    self.cls_id: int | None = inner.cls_token_id
    self.eos_id: int | None = inner.eos_token_id
    self.sep_id: int | None = inner.sep_token_id
    self.pad_id: int | None = inner.pad_token_id
    self.prefix, self.suffix = self._around()

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text with the special tokens, whole (never truncated).

    Raises:
      ValueError: a text has what the vocabulary lacks, and there is no token
        for the unknown.
    """
    if not texts:
      return []
    try:
      encoded = self._call(
        list(texts),
        add_special_tokens=True,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
      )
    except Exception as error:
      # The library's errors have no class of their own.
      if type(error) is not Exception:
        raise
      raise ValueError(
        f"the tokenizer {self.inner.name_or_path!r} cannot read a text "
        f"({_first_line(error)}); fix the text, or name another tokenizer"
      ) from error
    return encoded["input_ids"]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of `ids`, special tokens left out."""
    with languages.reading(self.inner, self.target):
      return self.inner.decode(
        [int(i) for i in ids],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
        **languages.decode_options(self.inner, self.target),
      )

  def token_strings(self, ids: Sequence[int]) -> list[str]:
    """The token of each id, as the vocabulary writes it."""
    with languages.reading(self.inner, self.target):
      return self.inner.convert_ids_to_tokens([int(i) for i in ids])

  def word_starts(self) -> Bool[np.ndarray, " V"]:
    """Whether each token begins a word: in a text a space comes before it.

    Of tokens that are no part of a text, such as special ones, it is True.
    """
    # Of one piece or two, the first of which may be no text.
    word = self._word()
    alone = len(self.decode(word))
    follow = (self.decode([*word, i])[alone:] for i in range(self.vocab_size))
    return np.fromiter((not text or text[0].isspace() for text in follow), bool)

  def token_id(self, token: str) -> int | None:
    """The id of a token's string; None where it has none."""
    return self._vocab().get(token)

  @property
  def has_modes(self) -> bool:
    """Whether it tokenises targets in another way than sources."""
    return languages.has_modes(self.inner)

  @property
  def writes_language(self) -> bool:
    """Whether it puts the code of a language around a text."""
    return languages.has_languages(self.inner)

  @property
  def language_id(self) -> int | None:
    """The code of the language that it puts around a text."""
    if not self.writes_language:
      return None
    named = (self.bos_id, self.cls_id, self.eos_id, self.sep_id, self.pad_id)
    around = (*self.prefix, *self.suffix)
    return next((i for i in around if i not in named), None)

  @property
  def codes(self) -> frozenset[int]:
    """The codes of all languages that it knows."""
    known = self.inner.get_vocab()
    named = languages.known_codes(self.inner)
    return frozenset(known[code] for code in named if code in known)

  @property
  def fingerprint(self) -> str:
    """Hex digest of all that decides the ids."""
    parts = [self._rules(), self._sorted(), self.prefix, self.suffix]
    if languages.has_modes(self.inner):
      parts.append(self.target)
    return _digest(*parts)

  @property
  def vocabulary(self) -> str:
    """Hex digest of what the ids mean, the same in both of its modes.

    Where Marian has two vocabularies, their digests differ.
    """
    if not languages.has_modes(self.inner):
      return self.fingerprint
    return _digest(self._rules(), self._sorted())

  @property
  def saved(self) -> str:
    """Hex digest of what its folder gives, in both modes."""
    if not languages.has_modes(self.inner):
      return self.fingerprint
    sides = [Tokenizer(self.inner).fingerprint]
    # Without a target language M2M has no target mode.
    with contextlib.suppress(KeyError), languages.restored(self.inner):
      sides.append(Tokenizer(self.inner, target=True).fingerprint)
    return _digest(*sides)

  def save(self, folder: str) -> None:
    """Writes the files that AutoTokenizer reads."""
    self.inner.save_pretrained(folder)

  def _call(self, texts: str | list[str], **options: Any) -> Any:
    if not self.target:
      return self.inner(texts, **options)
    try:
      return self.inner(text_target=texts, **options)
    except Exception:
      # It returns to its source mode only after a success.
      self.inner._switch_to_input_mode()
      raise

  def _vocab(self) -> dict[str, int]:
    return languages.vocab(self.inner, self.target)

  def _sorted(self) -> list[tuple[str, int]]:
    return sorted(self._vocab().items())

  def _rules(self) -> str:
    backend = getattr(self.inner, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else ""
    if rules and languages.has_modes(self.inner):
      # What stands around a text is of the mode that was used last. The
      # library's own reader of JSON moves the last digit of a score.
      parts = json.loads(rules, parse_float=lambda text: f"{float(text):.9g}")
      rules = json.dumps(parts | {"post_processor": None})
    for model in languages.models(self.inner):
      rules += hashlib.sha256(model.serialized_model_proto()).hexdigest()
    return rules

  def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens before and after a text."""
    for text in self._words():
      ids, special = self._marked(text)
      if 0 in special:
        first = special.index(0)
        last = len(special) - special[::-1].index(0)
        return tuple(ids[:first]), tuple(ids[last:])
    raise ValueError(
      f"the tokenizer {self.inner.name_or_path!r}: none of its tokens comes "
      "back from its text; name another tokenizer"
    )

  def _word(self) -> list[int]:
    """The ids of a word that the vocabulary holds."""
    for text in self._words():
      ids, special = self._marked(text)
      own = [i for i, mark in zip(ids, special, strict=True) if not mark]
      if self.inner.unk_token_id not in own and self.decode(own).strip():
        return own
    raise ValueError(
      f"the tokenizer {self.inner.name_or_path!r}: its vocabulary has no word; "
      "unset generation.block_trigrams, or name another tokenizer"
    )

  def _words(self) -> Iterator[str]:
    """A letter, which nearly all know, then the texts of single tokens.

    Those that are words come first.
    """
    yield "a"
    others = []
    for i in sorted(self._vocab().values()):
      text = self.decode([i]).strip()
      if text.isalnum():
        yield text
      elif text:
        others.append(text)
    yield from others

  def _marked(self, text: str) -> tuple[list[int], list[int]]:
    """The ids of a text, and of each whether it is a special one around it."""
    try:
      encoded = self._call(text, return_special_tokens_mask=True)
    except Exception as error:
      # As `encode_batch`: without a token for the unknown.
      if type(error) is not Exception:
        raise
      return [], []
    return encoded["input_ids"], encoded["special_tokens_mask"]


def load_tokenizer(
  name_or_folder: str,
  subfolder: str = "",
  *,
  target: bool = False,
  source_language: str = "",
  target_language: str = "",
) -> Tokenizer:
  """The tokenizer of a Hub id or folder; code from the Hub is never run.

  Args:
    target: in its target mode, if it has one.
    source_language, target_language: codes that its modes put around texts;
      empty: its own. The one of the other side is taken where it has it, so
      that what it saves serves both sides.

  Raises:
    LanguageError: it has not the language of its side.
    ValueError: there is no tokenizer.
  """
  try:
    inner = transformers.AutoTokenizer.from_pretrained(
      name_or_folder, subfolder=subfolder, trust_remote_code=False
    )
    bare = set(inner.get_vocab()) <= set(inner.all_special_tokens)
    if not bare:
      # Damaged files show when a text is tokenised.
      Tokenizer(inner)
  # Whatever its readers of files raise; those in Rust raise Exception itself.
  except Exception as error:
    raise ValueError(
      f"tokenizer {name_or_folder!r}: neither a folder with a tokenizer nor "
      f"one that the Hub gives ({_first_line(error)}); fix the name, or name "
      "a folder"
    ) from error
  # What transformers makes of a folder that has a config.json alone.
  if bare:
    raise ValueError(
      f"tokenizer {name_or_folder!r}: it has special tokens only, no "
      "vocabulary; add tokenizer.json, or name another folder"
    )
  languages.choose(
    inner,
    name_or_folder,
    {"source": source_language, "target": target_language},
    side="target" if target else "source",
  )
  return Tokenizer(inner, target=target)


def _digest(*parts: Any) -> str:
  return text_digest(json.dumps(parts))


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return clipped(lines[0]) if lines else type(error).__name__
