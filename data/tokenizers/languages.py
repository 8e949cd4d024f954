"""Source and target mode of a tokenizer, and the languages that it writes.

Some tokenizers treat a target unlike a source: Marian's has a sentencepiece
model for each, those of mBART, NLLB and M2M put the code of the side's language
around a text. All others have one mode and no language.
"""

import contextlib
import difflib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging

# Marian's, at each load and in each process, of a normaliser that it never
# calls.
warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
# Codes that an error lists.
_SHOWN = 5
# Where a tokenizer keeps the language of a side.
_ATTRIBUTES = {"source": "src_lang", "target": "tgt_lang"}


def has_modes(inner: Any) -> bool:
  """Whether a Hugging Face tokenizer has a mode of its own for targets."""
  return hasattr(inner, "_switch_to_target_mode")


def has_languages(inner: Any) -> bool:
  """Whether its modes differ by the code of a language."""
  return has_modes(inner) and hasattr(inner, "src_lang")


class LanguageError(ValueError):
  """A tokenizer has not the language that it should put around texts."""


def choose(
  inner: Any, name: str, codes: Mapping[str, str], *, side: str
) -> None:
  """Sets the languages of `inner`, which is then to read texts of `side`.

  Warns where a target mode has no language of its own.

  Args:
    name: what it was loaded from, for an error's words.
    codes: of "source" and "target"; empty: it stays the tokenizer's own. That
      of the other side is set where the tokenizer has it.

  Raises:
    LanguageError: it has no languages, or not this one, or cannot do without.
  """
  known = known_codes(inner) if has_languages(inner) else []
  for each, code in codes.items():
    if {code, f"__{code}__"} & set(known):
      setattr(inner, _ATTRIBUTES[each], code)
    elif code and each == side:
      raise _missing(f"data.{side}_language = {code!r}", name, code, known)
  if has_languages(inner):
    _make_special(inner)
    if side == "target" and inner.tgt_lang is None:
      _check_default(inner, name)


def _missing(
  setting: str, name: str, code: str, known: list[str]
) -> LanguageError:
  if not known:
    return LanguageError(
      f"{setting}: the tokenizer {name!r} puts no language's code around a "
      "text; set it to '', or name another tokenizer"
    )
  near = difflib.get_close_matches(code, known, n=_SHOWN, cutoff=0.4)
  return LanguageError(
    f"{setting} is no language of the tokenizer {name!r}: choose one of its "
    f"{len(known)} codes, such as {', '.join(near or known[:_SHOWN])}, or set "
    "it to '' for the tokenizer's own"
  )


def _check_default(inner: Any, name: str) -> None:
  """Says what a target mode does without a language of its own."""
  fix = "set data.target_language to one of its codes, such as " + ", ".join(
    known_codes(inner)[:_SHOWN]
  )
  try:
    with restored(inner):
      inner._switch_to_target_mode()
      code = inner.tgt_lang
  except KeyError as error:
    raise LanguageError(
      f"data.target_language is empty, and the tokenizer {name!r} names no "
      f"target language: {fix}"
    ) from error
  logging.warning(
    "data.target_language is empty, and the tokenizer %r names no target "
    "language: targets have %s; %s",
    *(name, f"the source's, {code}" if code else "no code", fix),
  )


@contextlib.contextmanager
def restored(inner: Any) -> Iterator[None]:
  """Afterwards it is in its source mode, and its languages are as before."""
  language = getattr(inner, "tgt_lang", None)
  try:
    yield
  finally:
    if has_modes(inner):
      if has_languages(inner):
        inner.tgt_lang = language
      inner._switch_to_input_mode()


@contextlib.contextmanager
def reading(inner: Any, target: bool) -> Iterator[None]:
  """Inside, ids are those of a side, where Marian has two vocabularies.

  It reads all ids as those of a target.
  """
  if target or not getattr(inner, "separate_vocabs", False):
    yield
    return
  of_target = inner.decoder
  inner.decoder = {index: token for token, index in inner.encoder.items()}
  try:
    yield
  finally:
    inner.decoder = of_target


def decode_options(inner: Any, target: bool) -> dict[str, bool]:
  """What `decode` must be told of the side whose ids it is given."""
  return {"use_source_tokenizer": not target} if _is_marian(inner) else {}


def vocab(inner: Any, target: bool) -> dict[str, int]:
  """Token to id, of a side."""
  if target and getattr(inner, "separate_vocabs", False):
    return inner.target_encoder | inner.added_tokens_encoder
  return inner.get_vocab()


def models(inner: Any) -> list[Any]:
  """The sentencepiece models that it runs as they are, of both sides."""
  if _is_marian(inner):
    return [inner.spm_source, inner.spm_target]
  model = getattr(inner, "sp_model", None)
  return [] if model is None else [model]


def _is_marian(inner: Any) -> bool:
  return hasattr(inner, "spm_target")


def known_codes(inner: Any) -> list[str]:
  """The languages' codes; NLLB's are its special tokens."""
  known = [*getattr(inner, "lang_code_to_id", ()), *inner.extra_special_tokens]
  return list(dict.fromkeys(map(str, known)))


def _make_special(inner: Any) -> None:
  """Has M2M's tokens of languages left out of a text, and counted.

  A folder may lack its list of special tokens, without which they are read as
  text and stand in no vocabulary.
  """
  tokens = list(getattr(inner, "lang_token_to_id", ()))
  if set(tokens) - set(inner.all_special_tokens):
    known = map(str, inner.extra_special_tokens)
    every = list(dict.fromkeys([*known, *tokens]))
    inner.add_special_tokens({"extra_special_tokens": every})
