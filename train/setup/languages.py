"""The languages of a run: those of its tokenizers, and what starts a target."""

from collections.abc import Mapping
from typing import Any

from transformers import EncoderDecoderConfig

from data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from encdec.special_tokens import SpecialTokens, TokenSource
from train.config import Config
from train.errors import Refusal

# Architectures whose PyTorch class starts a target with its last token
# (`shift_tokens_right` without a start), whatever a file says.
_WRAPPED = ("mbart",)


def load_side_tokenizer(
  config: Config, kind: str, name: str, subfolder: str = ""
) -> Tokenizer:
  """A side's tokenizer, with the languages of the configuration.

  Args:
    kind: "source" or "target".
    name: a Hub id or folder.

  Raises:
    LanguageError: it has not the language of its side.
    ValueError: there is none.
  """
  return load_tokenizer(
    name,
    subfolder,
    target=kind == "target",
    source_language=config.data.source_language,
    target_language=config.data.target_language,
  )


def check_trained(config: Config, kind: str) -> None:
  """Raises Refusal where a tokenizer is trained that should have a language."""
  if code := config.data[f"{kind}_language"]:
    raise Refusal(
      f"data.{kind}_language = {code!r}: a tokenizer that is trained on the "
      f"texts has no language; set it to '', or data.{kind}_tokenizer to one "
      "that has"
    )


def start_id(tokenizer: Tokenizer) -> int | None:
  """The token that starts a target, as its tokenizer has it.

  With a language that is what ends a target: mBART's code, and the end token of
  mBART-50, NLLB and M2M, after which the code is the first token.
  """
  if tokenizer.writes_language and tokenizer.suffix:
    return tokenizer.suffix[-1]
  first = (tokenizer.cls_id, tokenizer.bos_id)
  return next((i for i in first if i is not None), None)


def preset_start(preset: Mapping[str, Any], tokenizer: Tokenizer) -> int | None:
  """The start token of a preset that takes its ids from its tokenizer."""
  start = start_id(tokenizer)
  first = preset.get("decoder_start_token_id")
  if start is None and first is not None and first == preset["pad_token_id"]:
    # Marian's targets start with it, and its tokenizers have no other.
    return tokenizer.pad_id
  return start


def start_sources(
  config: Config,
  hub_config: EncoderDecoderConfig,
  tokenizer: Tokenizer,
) -> tuple[TokenSource, ...]:
  """The start token where the target's language decides it, and no file.

  It does for a decoder of mBART's class. A saved pair starts as its files say,
  unless the run gives it another language.
  """
  if not tokenizer.writes_language:
    return ()
  start = start_id(tokenizer)
  kind = getattr(hub_config.decoder, "model_type", "")
  decides = kind in _WRAPPED
  if config.model.pair:
    decides = bool(config.data.target_language) and (
      start == tokenizer.language_id
    )
  return (TokenSource("the target's language", start=start),) * decides


def options(
  tokenizer: Tokenizer, tokens: SpecialTokens, chosen: bool
) -> Mapping[str, Any]:
  """Options of generation that follow from the target's language.

  A code that begins every target is the only first token.

  Args:
    chosen: the configuration names the language.
  """
  code = tokenizer.language_id
  if code is None:
    return {}
  if code == tokens.start or code not in tokenizer.prefix:
    # What a saved pair forces is of the language that it was trained in.
    return {"forced_bos_token_id": None} if chosen else {}
  return {"forced_bos_token_id": code}


def check_forced(tokenizer: Tokenizer, saved: Mapping[str, Any]) -> None:
  """Raises Refusal where a saved pair writes another language than its targets.

  Args:
    saved: its options of generation.
  """
  forced, code = saved.get("forced_bos_token_id"), tokenizer.language_id
  if code is None or forced == code or forced not in tokenizer.codes:
    return
  names = tokenizer.token_strings([forced, code])
  raise Refusal(
    f"model.pair forces the first token {names[0]} (forced_bos_token_id), and "
    f"its target tokenizer writes {names[1]}: set data.target_language to the "
    "language of the targets"
  )
