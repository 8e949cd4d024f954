"""Settings of generation: the config's, a saved pair's, and the defaults.

An option is the config's where the config sets it; else that of the saved pair
that the run starts from; else the default. Options are named and valued as
Hugging Face's GenerationConfig has them.
"""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from encdec import hub
from encdec.generation.search import options as search
from encdec.generation.search.options import SearchOptions
from encdec.special_tokens import SpecialTokens
from train.config import Config

# The keys of `generation` that are options: the value that leaves one unset,
# and what it is then where no saved pair sets it. The default of max_length
# goes by the data.
UNSET: dict[str, tuple[Any, Any]] = {
  "num_beams": (0, 1),
  "num_return_sequences": (0, 1),
  "max_length": (0, None),
  "min_length": (-1, 0),
  "length_penalty": (-100.0, 1.0),
  "no_repeat_ngram_size": (-1, 0),
  "early_stopping": ("", "false"),
}
EARLY_STOPPING = {"false": False, "true": True, "never": "never"}
# Ids that are resolved with the tokenizer's, and the form of a result.
_ELSEWHERE = {
  "decoder_start_token_id": "model.start_token",
  "eos_token_id": "model.end_token",
  "pad_token_id": "model.pad_token",
  "bos_token_id": "model.start_token",
  **{name: f"generation.{name}" for name in UNSET},
  "max_new_tokens": "generation.max_length",
  "min_new_tokens": "generation.min_length",
}
_RESULT = ("output_scores", "output_logits", "output_attentions")
# A run searches: its texts are the same at every evaluation.
_SAMPLING = (
  "do_sample",
  "temperature",
  "top_k",
  "top_p",
  "min_p",
  "typical_p",
  "epsilon_cutoff",
  "eta_cutoff",
)
CARRIED = hub.SUPPORTED - {*_ELSEWHERE, *_RESULT, *_SAMPLING}
# They look at the source's tokens, which a stream of sources does not keep.
_OF_SOURCE = ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size")
# Values at which an option does nothing, as old files are full of.
_NEUTRAL = {
  "repetition_penalty": 1.0,
  "encoder_repetition_penalty": 1.0,
  "encoder_no_repeat_ngram_size": 0,
  "num_beam_groups": 1,
  "diversity_penalty": 0.0,
  "renormalize_logits": False,
  "remove_invalid_values": False,
}


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
  """How a run generates.

  Attributes:
    options: those of `UNSET`, all, and of the others those that are set.
    origins: option to where its value was found.
    sampling: what the saved pair sets of sampling, which a run does not do.
    scoring, block_trigrams: those of the config; a GenerationConfig has none.
  """

  options: Mapping[str, Any]
  origins: Mapping[str, str]
  sampling: Mapping[str, Any]
  scoring: str
  block_trigrams: bool

  @property
  def max_length(self) -> int:
    """Tokens of a text, the start token included."""
    return self.options["max_length"]

  def tell(self) -> None:
    """Logs the options and where each was found."""
    options = (
      f"{name}={value!r} ({self.origins[name]})"
      for name, value in self.options.items()
    )
    logging.info("generation: %s", ", ".join(options))
    if self.sampling:
      logging.warning(
        "the generation config of model.pair samples (%s): a run searches, so "
        "that two evaluations are alike",
        ", ".join(f"{name}={value!r}" for name, value in self.sampling.items()),
      )


def resolve(
  config: Config,
  saved: Mapping[str, Any] | None = None,
  further: Mapping[str, Any] | None = None,
) -> GenerationSettings:
  """The settings of a configuration.

  Args:
    saved: what the generation config of a saved pair sets.
    further: options that follow from the target tokenizer.

  Raises:
    ValueError: an option that is not supported, or options that contradict
      each other; the message names the key.
  """
  longest = config.data.max_target_length + 1
  options = {n: default for n, (_, default) in UNSET.items()}
  options |= {
    "max_length": longest,
    "early_stopping": EARLY_STOPPING[options["early_stopping"]],
  }
  origins = dict.fromkeys(options, "default")
  origins["max_length"] = "data.max_target_length + 1"
  by_origin = [
    ("the saved pair", _of_pair(saved or {})),
    # What the run's own targets begin with, where the pair's had another.
    ("the target tokenizer", further or {}),
    ("the config", _of_keys(config)),
    ("generation.options", _of_options(config.generation.options)),
  ]
  for where, values in by_origin:
    for name, value in values.items():
      options[name], origins[name] = value, where
  # A None unsets what the pair sets.
  options = {n: v for n, v in options.items() if v is not None}
  settings = GenerationSettings(
    options=options,
    origins={name: origins[name] for name in options},
    sampling=_of_sampling(saved or {}),
    scoring=config.generation.scoring,
    block_trigrams=config.generation.block_trigrams,
  )
  _check(settings)
  return settings


def search_options(
  settings: GenerationSettings,
  tokens: SpecialTokens,
  vocab_size: int,
  word_starts: np.ndarray | None,
) -> SearchOptions:
  """What the search is asked for.

  Args:
    word_starts: `[V]`, for each token whether it begins a word; of
      `block_trigrams`.

  Raises:
    ValueError: a value out of its range, or an id outside the vocabulary.
  """
  try:
    options = hub.search_options(
      settings.options,
      max_length=settings.max_length,
      min_length=settings.options["min_length"],
      end_tokens=tokens.end,
      pad_token=_pad(tokens),
      vocab_size=vocab_size,
      scoring=settings.scoring,
      processors=(),
      word_starts=word_starts,
    )
    search.check(options, vocab_size)
  except ValueError as error:
    raise ValueError(f"{_key(settings, str(error))}: {error}") from error
  return dataclasses.replace(options, sum_log_probs=True)


def _key(settings: GenerationSettings, text: str) -> str:
  """The key to change about options that an error names."""
  named = {settings.origins[n] for n in settings.options if n in text}
  if "generation.options" in named:
    return "generation.options"
  if "the saved pair" in named:
    return "generation.options, in place of what the saved pair sets"
  return "generation"


def _pad(tokens: SpecialTokens) -> int:
  assert tokens.pad is not None, "it was needed"
  return tokens.pad


def _of_keys(config: Config) -> dict[str, Any]:
  """The keys that the config sets."""
  values = {
    name: config.generation[name]
    for name, (unset, _) in UNSET.items()
    if config.generation[name] != unset
  }
  if "early_stopping" in values:
    values["early_stopping"] = EARLY_STOPPING[values["early_stopping"]]
  return values


def _of_options(text: str) -> dict[str, Any]:
  """`generation.options`, a JSON object."""
  if not text:
    return {}
  example = "'{\"repetition_penalty\": 1.2}'"
  try:
    values = json.loads(text)
  except ValueError as error:
    raise ValueError(
      f"generation.options = {text[:80]!r} is no JSON ({error}): set it to an "
      f"object such as {example}"
    ) from error
  if not isinstance(values, dict):
    raise ValueError(
      f"generation.options = {text[:80]!r} is no JSON object: set it to one, "
      f"such as {example}"
    )
  for name, value in values.items():
    if name in _ELSEWHERE:
      raise ValueError(
        f"generation.options = {text[:80]!r}: set {_ELSEWHERE[name]} in place "
        f"of {name}"
      )
    if name in _SAMPLING:
      raise ValueError(
        f"generation.options = {text[:80]!r}: {name} is of sampling, and a run "
        "searches; leave it out"
      )
    if value is None and hub.is_option(name):
      continue
    if name not in CARRIED:
      near = difflib.get_close_matches(name, sorted(CARRIED), n=1)
      hint = f"; did you mean {near[0]!r}?" if near else ""
      raise ValueError(
        f"generation.options = {text[:80]!r}: {name[:40]!r} is no option of "
        f"the search{hint}; there are {', '.join(sorted(CARRIED))}"
      )
    if name in _OF_SOURCE:
      raise ValueError(
        f"generation.options = {text[:80]!r}: {name} is not supported in a "
        "run, which keeps no source's tokens; leave it out, or set it to null"
      )
  return values


def _of_pair(saved: Mapping[str, Any]) -> dict[str, Any]:
  """What a saved pair's generation config sets of a search."""
  values = {}
  for name, value in saved.items():
    if name == "max_new_tokens":
      # After the start token; it counts where max_length is set too.
      values["max_length"] = 1 + value
    elif name == "min_new_tokens":
      values["min_length"] = 1 + value
    elif name == "max_length" and "max_new_tokens" in saved:
      continue
    elif name == "min_length" and "min_new_tokens" in saved:
      continue
    elif name in UNSET or name in CARRIED:
      if value != _NEUTRAL.get(name):
        values[name] = value
    elif name not in {*_ELSEWHERE, *_RESULT, *_SAMPLING} and not (
      hub.is_supported(name, value)
    ):
      # Refused, unless generation.options takes it away.
      values[name] = value
  return values


def _of_sampling(saved: Mapping[str, Any]) -> dict[str, Any]:
  if not saved.get("do_sample"):
    return {}
  return {name: saved[name] for name in _SAMPLING if name in saved}


def _check(settings: GenerationSettings) -> None:
  """What the options tell together."""
  options, origins = settings.options, settings.origins

  def named(name: str) -> str:
    where = origins[name]
    origin = f" (of {where})" if where == "the saved pair" else ""
    return f"generation.{name} = {options[name]!r}{origin}"

  for name, value in options.items():
    unsupported = name in _OF_SOURCE or name not in {*UNSET, *CARRIED}
    if unsupported or not _is_kind(name, value):
      remedy = f"--config.generation.options='{{\"{name}\": null}}'"
      if name in UNSET:
        remedy = f"--config.generation.{name}="
      raise ValueError(
        f"{name}={str(value)[:80]} (of {origins[name]}) is not supported in a "
        f"run: take it away by {remedy}"
      )
  longest = settings.max_length
  if longest < 2:
    raise ValueError(
      f"{named('max_length')} is the start token alone; set it to 2 or more"
    )
  if options["min_length"] > longest:
    raise ValueError(
      f"{named('min_length')} exceeds the maximum of {longest}: lower it or "
      "raise generation.max_length"
    )
  if options["num_return_sequences"] > options["num_beams"]:
    raise ValueError(
      f"{named('num_return_sequences')} exceeds {named('num_beams')}: raise "
      "that, or lower it"
    )
  if settings.block_trigrams and options["num_beams"] < 2:
    raise ValueError(
      "generation.block_trigrams = True drops beams that repeat words, and "
      "there are none: raise generation.num_beams, or unset it"
    )


def _is_kind(name: str, value: Any) -> bool:
  """Whether the value of a key of `UNSET` is of its kind."""
  if name == "early_stopping":
    return any(value is kind for kind in (True, False)) or value == "never"
  kinds = (int, float) if name == "length_penalty" else (int,)
  return name not in UNSET or type(value) in kinds
