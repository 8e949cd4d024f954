"""The tokenizers of a run: chosen or trained, and kept in its folder."""

import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data import sources
from data.store.source_cache import open_remembered
from data.tokenizers import training
from data.tokenizers.languages import LanguageError
from data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from encdec import hub
from encdec.archs import ARCHS
from train import validate
from train.config import Config
from train.errors import Refusal
from train.setting_names import naming
from train.setup import languages

SIDES = {"encoder": "source", "decoder": "target"}
# Kinds of trained tokenizers, as architectures name them.
TRAINERS: dict[str, Callable[..., Tokenizer]] = {
  "wordpiece": training.train_wordpiece,
  "gpt2": training.train_bpe,
  "roberta": functools.partial(training.train_bpe, family="roberta"),
}


def make(
  config: Config, sides: Mapping[str, Any], share: str, folder: Path
) -> None:
  """Writes the tokenizers of a run that begins into its folder.

  Args:
    sides: Hub configs, by side.
    share: what the sides share.

  Raises:
    ValueError, OSError: there is no such tokenizer, or none for both sides.
  """
  made = {side: _tokenizer(config, side, sides, share) for side in SIDES}
  _check_one(share, made)
  _check_copied(config, made)
  _save(made, folder)


def read(folder: Path) -> dict[str, Tokenizer]:
  """By side, as `make` wrote them: they keep their languages."""
  return {
    side: load_tokenizer(
      str(folder / "tokenizers" / kind), target=kind == "target"
    )
    for side, kind in SIDES.items()
  }


def _tokenizer(
  config: Config, side: str, sides: Mapping[str, Any], share: str
) -> Tokenizer:
  """Named by the config, the model's own, or trained on the training split.

  Sides that share embeddings have one tokenizer, of the decoder's kind and of
  both sides' texts.
  """
  kind = SIDES[side]
  if named := config.data[f"{kind}_tokenizer"]:
    with naming(f"data.{kind}_tokenizer", named):
      return languages.load_side_tokenizer(config, kind, named)
  if config.model.pair:
    with naming("model.pair", config.model.pair):
      return _pair_tokenizer(config, side, sides)
  if not validate.is_preset(config.model[side]):
    with naming(f"model.{side}", config.model[side]):
      return languages.load_side_tokenizer(config, kind, config.model[side])
  languages.check_trained(config, kind)
  both = (config.data.source_field, config.data.target_field)
  fields, owner = [config.data[f"{kind}_field"]], side
  if share != "none":
    fields, owner = both, "decoder"
  parts = [
    open_remembered(
      uri, fields=both, on_bad_record=config.data.on_bad_record, folder=None
    )
    for uri in sources.parse_mixture(config.data.train)
  ]
  texts = (
    part[i][field]
    for part in parts
    for i in range(len(part))
    for field in fields
  )
  name = ARCHS[sides[owner].model_type].TOKENIZER
  # Byte-level BPE always tells capitals apart.
  options = {"wordpiece": {"keep_case": config.data.keep_case}}.get(name, {})
  return TRAINERS[name](texts, config.data[f"{kind}_vocab_size"], **options)


def _pair_tokenizer(
  config: Config, side: str, sides: Mapping[str, Any]
) -> Tokenizer:
  """A saved pair's: the source's at its root, the target's beside it."""
  name, kind = config.model.pair, SIDES[side]
  subfolder = ""
  if side == "decoder":
    subfolder = hub.target_tokenizer_of(hub.Origin(name))
    sizes = {key: hub_config.vocab_size for key, hub_config in sides.items()}
    if not subfolder and sizes["encoder"] != sizes["decoder"]:
      raise Refusal(
        f"model.pair = {name!r} holds one tokenizer, and its sides have "
        f"vocabularies of {sizes['encoder']} and {sizes['decoder']} tokens: "
        "set data.target_tokenizer to the decoder's"
      )
  try:
    return languages.load_side_tokenizer(config, kind, name, subfolder)
  except LanguageError:
    raise
  except ValueError as error:
    raise Refusal(
      f"model.pair = {name!r} holds no {kind} tokenizer that can be read: set "
      f"data.{kind}_tokenizer ({error})"
    ) from error


def _check_one(share: str, made: Mapping[str, Tokenizer]) -> None:
  """Raises Refusal where the sides share embeddings of different ids."""
  one, other = made.values()
  if share != "none" and one.vocabulary != other.vocabulary:
    raise Refusal(
      f"the sides share {share!r} (model.share), but their tokenizers differ: "
      "name one in data.source_tokenizer and data.target_tokenizer, or set "
      "model.share to 'none'"
    )


def _check_copied(config: Config, made: Mapping[str, Tokenizer]) -> None:
  """Raises Refusal where a table would be copied to other tokens' rows."""
  one, other = made.values()
  if config.model.decoder_embeddings_init and (
    one.vocabulary != other.vocabulary
  ):
    raise Refusal(
      "model.decoder_embeddings_init = 'encoder', but the tokenizers of the "
      "sides differ: set data.target_tokenizer to the encoder's, or it to ''"
    )


def _save(made: Mapping[str, Tokenizer], folder: Path) -> None:
  # Without config.json no run has begun: what lies here is a failed start's.
  final, partial = folder / "tokenizers", folder / "tokenizers.partial"
  for old in (final, partial):
    if old.exists():
      shutil.rmtree(old)
  for side, tokenizer in made.items():
    (partial / SIDES[side]).mkdir(parents=True)
    tokenizer.save(str(partial / SIDES[side]))
  partial.rename(final)
