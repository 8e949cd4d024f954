"""`generate`'s options: merged from call and files, checked, with lengths."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import GenerationConfig

from encdec.special_tokens import TokenSource, token_source

DEFAULT_NEW_TOKENS = 20
# Options of this library's search, see `encdec.hub.facade.search_options`.
SUPPORTED = {
  "max_length", "max_new_tokens", "min_length", "min_new_tokens",
  "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id",
  "do_sample", "num_beams", "num_beam_groups", "num_return_sequences",
  "early_stopping", "length_penalty", "diversity_penalty",
  "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff",
  "eta_cutoff", "renormalize_logits", "repetition_penalty",
  "encoder_repetition_penalty", "no_repeat_ngram_size",
  "encoder_no_repeat_ngram_size", "bad_words_ids", "sequence_bias",
  "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id",
  "forced_eos_token_id", "exponential_decay_length_penalty",
  "remove_invalid_values", "output_scores", "output_logits",
  "output_attentions",
}  # fmt: skip
# Options that cannot change the tokens: those of speed, of assistant models,
# which are not supported, and of the result's form.
_HARMLESS = {
  "num_assistant_tokens", "num_assistant_tokens_schedule",
  "assistant_confidence_threshold", "assistant_lookbehind",
  "target_lookbehind", "is_assistant", "use_cache", "cache_implementation",
  "cache_config", "max_cache_len", "compile_config", "disable_compile",
  "low_memory", "prefill_chunk_size", "return_dict_in_generate",
  "transformers_version", "max_matching_ngram_size",
}  # fmt: skip
# Options that only one mode uses, and the values at which they do nothing
# there.
_OF_SAMPLING = {
  "temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0,
  "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
}  # fmt: skip
_OF_BEAMS = {
  "length_penalty": 1.0, "early_stopping": False, "scoring": "pytorch",
}  # fmt: skip
# Values at which an option that is not supported does nothing; None and False
# always do nothing.
_NEUTRAL = {"guidance_scale": 1.0, "penalty_alpha": 0.0}


@dataclasses.dataclass(frozen=True)
class Request:
  """The options of one call of `generate`.

  Attributes:
    values: options that are set, none of them None.
    call: special ids that the call itself sets.
    file: special ids of the model's generation config.
    bos: that config's bos_token_id, a start token of last resort.
    given: names of the options that the call itself sets.
  """

  values: Mapping[str, Any]
  call: TokenSource
  file: TokenSource
  bos: int | None
  given: frozenset[str]

  def idle(self, scoring: str) -> list[str]:
    """Options that the call sets and its mode ignores; names the mode to use.

    What a file sets besides is meant for whoever uses that mode.
    """
    values = {**self.values, "scoring": scoring}
    given = self.given | {"scoring"}
    modes = (
      (_OF_SAMPLING, "do_sample", False, "do_sample=True"),
      (_OF_BEAMS, "num_beams", 1, "num_beams of at least 2"),
    )
    return [
      f"{name}={values[name]!r} does nothing without {needed}"
      for options, mode, off, needed in modes
      if values.get(mode, off) == off
      for name, neutral in options.items()
      if name in given and values[name] != neutral
    ]

  def check(self) -> None:
    """Raises ValueError for an option that is not supported."""
    for name, value in self.values.items():
      if not is_supported(name, value):
        raise ValueError(f"{name}={value!r} is not supported; set it to None")

  def lengths(self, prompt: int, limit: int) -> tuple[int, int]:
    """Maximum and minimum length, the prompt included.

    Args:
      prompt: its tokens, the start token among them.
      limit: the decoder's position table.

    Raises:
      ValueError: they contradict each other or exceed the table.
    """
    values = self.values
    if "max_new_tokens" in values:
      longest, name = whole(values, "max_new_tokens") + prompt, "max_new_tokens"
    elif "max_length" in values:
      longest, name = whole(values, "max_length"), "max_length"
    else:
      longest, name = min(DEFAULT_NEW_TOKENS + prompt, limit), "max_length"
    shortest = whole(values, "min_length", 0)
    if "min_new_tokens" in values:
      shortest = whole(values, "min_new_tokens") + prompt
    if name == "max_new_tokens" and longest <= prompt:
      raise ValueError(f"max_new_tokens={longest - prompt} must be at least 1")
    if longest <= prompt:
      raise ValueError(
        f"{name} allows {longest} tokens and the prompt has {prompt}; raise "
        f"{name} or pass max_new_tokens"
      )
    if longest > limit:
      raise ValueError(
        f"{name} allows {longest} tokens; the decoder's position table ends "
        f"at {limit}: lower {name}"
      )
    if shortest > longest:
      raise ValueError(
        f"min_length={shortest} exceeds the maximum of {longest}; lower it"
      )
    return longest, shortest


def whole(values: Mapping[str, Any], name: str, default: int = 0) -> int:
  """An option's value as an int.

  Raises:
    ValueError: it is another value.
  """
  value = values.get(name, default)
  if isinstance(value, bool) or not isinstance(value, int | np.integer):
    raise ValueError(f"{name}={value!r} must be a whole number")
  return int(value)


def request(
  model_config: GenerationConfig, call_config: Any, overrides: Mapping[str, Any]
) -> Request:
  """Merges options: the call's go before its config's and the model's.

  Raises:
    TypeError: an option that does not exist.
  """
  if call_config is not None and not hasattr(call_config, "to_dict"):
    raise TypeError(
      f"the second argument of generate() is generation_config, and a "
      f"{type(call_config).__name__} was passed; pass attention_mask= or "
      "max_length= by name"
    )
  known = GenerationConfig().to_dict()
  for name, value in overrides.items():
    if name in ("seed", "rng", "dropout_rng"):
      raise TypeError(
        f"{name}={value!r}: generate() draws with prng_key=jax.random.key(seed)"
      )
    if name not in known:
      raise TypeError(f"generate() has no option {name!r}; check the spelling")
  call = {k: v for k, v in overrides.items() if v is not None}
  given = {} if call_config is None else options_of(call_config)
  file = options_of(model_config)
  values = file | given | call
  return Request(
    values=values,
    call=token_source("the call", given | call),
    file=token_source("model.generation_config", file),
    bos=values.get("bos_token_id"),
    given=frozenset(given | call),
  )


def options_of(config: GenerationConfig) -> dict[str, Any]:
  """The options that a config sets, which are those that are not None."""
  return {
    name: value
    for name, value in copy.deepcopy(config.to_dict()).items()
    if value is not None
  }


def is_supported(name: str, value: Any) -> bool:
  """Whether an option is one of the search, or does nothing at this value."""
  known = name in SUPPORTED or name in _HARMLESS or name.startswith("_")
  return known or value is False or value == _NEUTRAL.get(name)


def is_option(name: str) -> bool:
  """Whether GenerationConfig has an option of that name."""
  return name in GenerationConfig().to_dict()
