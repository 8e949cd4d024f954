"""Converts Hugging Face's generation options to the search's."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from encdec.generation.search.options import (
  Processor,
  ScoreRules,
  SearchOptions,
  SequenceBias,
  Warps,
)
from encdec.hub.facade.supported_options import whole

Values = Mapping[str, Any]


def search_options(
  values: Values,
  *,
  max_length: int,
  min_length: int,
  end_tokens: tuple[int, ...],
  pad_token: int,
  vocab_size: int,
  scoring: str,
  processors: Sequence[Processor],
  word_starts: Any,
) -> SearchOptions:
  """The search's options; what may change without compiling is an array.

  Args:
    values: options that are set; one that is not has PyTorch's default.
    max_length, min_length: with the prompt, see `Request.lengths`.
    word_starts: see `encdec.generation.search.options.ScoreRules`.

  Raises:
    ValueError: a value out of its range, or an id outside the vocabulary.
  """
  sample = bool(values.get("do_sample", False))
  diversity = _number(values, "diversity_penalty", 0.0)
  if not 0.0 <= diversity < np.inf:
    raise ValueError(f"diversity_penalty={diversity} must not be below 0")
  return SearchOptions(
    max_length=_int(max_length),
    pad_token=_int(pad_token),
    length_penalty=_float(_number(values, "length_penalty", 1.0)),
    diversity_penalty=_float(diversity) if diversity else None,
    rules=_rules(
      values,
      min_length,
      end_tokens,
      vocab_size,
      tuple(processors),
      _words(word_starts, vocab_size),
    ),
    warps=_warps(values) if sample else Warps(),
    end_tokens=end_tokens,
    num_beams=whole(values, "num_beams", 1),
    num_groups=whole(values, "num_beam_groups", 1),
    num_returned=whole(values, "num_return_sequences", 1),
    sample=sample,
    early_stopping=_early_stopping(values.get("early_stopping", False)),
    scoring=scoring,
    renormalize_logits=bool(values.get("renormalize_logits", False)),
    keep_scores=bool(values.get("output_scores", False)),
    keep_logits=bool(values.get("output_logits", False)),
  )


def _int(value: Any) -> Array:
  return jnp.asarray(value, jnp.int32)


def _float(value: Any) -> Array:
  return jnp.asarray(value, jnp.float32)


def _early_stopping(value: Any) -> str:
  if value is True or value is False:
    return str(value).lower()
  if value == "never":
    return value
  raise ValueError(f"early_stopping={value!r} must be True, False or 'never'")


def _rules(
  values: Values,
  min_length: int,
  end_tokens: tuple[int, ...],
  vocab_size: int,
  processors: tuple[Processor, ...],
  word_starts: Bool[Array, "V"] | None,
) -> ScoreRules:
  decay = values.get("exponential_decay_length_penalty")

  def ids(name: str) -> np.ndarray | None:
    return _ids(name, values.get(name), vocab_size)

  def mask(name: str) -> Array | None:
    given = ids(name)
    if given is None:
      return None
    return jnp.zeros((vocab_size,), bool).at[given].set(True)

  forced_start, forced_end = (
    ids("forced_bos_token_id"),
    ids("forced_eos_token_id"),
  )
  return ScoreRules(
    sequence_bias=_sequence_bias(values.get("sequence_bias"), vocab_size),
    encoder_repetition_penalty=_penalty("encoder_repetition_penalty", values),
    repetition_penalty=_penalty("repetition_penalty", values),
    bad_words=_bad_words(values.get("bad_words_ids"), end_tokens, vocab_size),
    min_length=_int(min_length) if min_length > 0 else None,
    forced_start=None if forced_start is None else _one_id(forced_start),
    forced_end=None if forced_end is None else _int(forced_end),
    decay=None if decay is None else _decay(decay, end_tokens),
    suppressed=mask("suppress_tokens"),
    suppressed_first=mask("begin_suppress_tokens"),
    word_starts=word_starts,
    no_repeat_ngram_size=_count("no_repeat_ngram_size", values),
    encoder_no_repeat_ngram_size=_count("encoder_no_repeat_ngram_size", values),
    remove_invalid_values=bool(values.get("remove_invalid_values", False)),
    custom=processors,
  )


def _ids(name: str, value: Any, vocab_size: int) -> np.ndarray | None:
  """One token id or several, checked against the vocabulary."""
  if value is None:
    return None
  ids = np.atleast_1d(np.asarray(value))
  if not np.issubdtype(ids.dtype, np.integer) or ids.size == 0:
    raise ValueError(f"{name}={value!r} must be token ids")
  for token in ids.reshape(-1).tolist():
    if not 0 <= token < vocab_size:
      raise ValueError(
        f"{name} holds {token}, which is outside the vocabulary of {vocab_size}"
      )
  return ids.astype(np.int32)


def _one_id(ids: np.ndarray) -> Array:
  if ids.size > 1:
    raise ValueError(
      f"forced_bos_token_id={ids.tolist()} must be one id; pass one"
    )
  return _int(ids[0])


def _penalty(name: str, values: Values) -> Array | None:
  value = _number(values, name, 1.0)
  if not 0.0 < value < np.inf:
    raise ValueError(f"{name}={value} must be positive")
  return None if value == 1.0 else _float(value)


def _number(values: Values, name: str, default: float) -> float:
  value = values.get(name, default)
  try:
    return float(value)
  except (TypeError, ValueError):
    raise ValueError(f"{name}={value!r} must be a number") from None


def _count(name: str, values: Values, default: int = 0) -> int:
  value = whole(values, name, default)
  if value < 0:
    raise ValueError(f"{name}={value!r} must be at least 0")
  return value


def _decay(value: Any, end_tokens: tuple[int, ...]) -> tuple[Array, Array]:
  if not end_tokens:
    raise ValueError(
      "exponential_decay_length_penalty favours the end token and none is "
      "set; pass eos_token_id"
    )
  if not isinstance(value, list | tuple) or len(value) != 2:
    raise ValueError(
      f"exponential_decay_length_penalty={value!r} must be (start, factor)"
    )
  name = "exponential_decay_length_penalty"
  pair = {f"{name}[{index}]": part for index, part in enumerate(value)}
  start, factor = pair
  return _int(whole(pair, start)), _float(_number(pair, factor, 1.0))


def _sequence_bias(value: Any, vocab_size: int) -> SequenceBias | None:
  """Reads a dict of tuples to amounts, or Hugging Face's list of pairs."""
  if value is None:
    return None
  pairs = value.items() if isinstance(value, Mapping) else value
  try:
    biases = {tuple(ids): float(amount) for ids, amount in pairs}
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"sequence_bias={value!r} must map tuples of ids to numbers"
    ) from error
  return _bias("sequence_bias", biases, vocab_size)


def _bad_words(
  value: Any, end_tokens: tuple[int, ...], vocab_size: int
) -> SequenceBias | None:
  if value is None:
    return None
  if not value or not all(isinstance(ids, list | tuple) for ids in value):
    raise ValueError(f"bad_words_ids={value!r} must be a list of lists of ids")
  # An end token alone is never a bad word.
  biases = {
    tuple(ids): -np.inf
    for ids in value
    if not (len(ids) == 1 and ids[0] in end_tokens)
  }
  return _bias("bad_words_ids", biases, vocab_size) if biases else None


def _bias(
  name: str, amounts: Mapping[tuple[int, ...], float], vocab_size: int
) -> SequenceBias:
  if not amounts or not all(amounts):
    raise ValueError(f"{name} is empty, or one of its sequences is")
  single = np.zeros((vocab_size,), np.float32)
  longer: dict[int, list[tuple[tuple[int, ...], float]]] = {}
  for sequence, amount in amounts.items():
    _ids(name, list(sequence), vocab_size)
    if len(sequence) == 1:
      single[sequence[0]] = amount
    else:
      longer.setdefault(len(sequence), []).append((sequence, amount))
  return SequenceBias(
    jnp.asarray(single),
    tuple(
      (
        _int([sequence[:-1] for sequence, _ in group]),
        _int([sequence[-1] for sequence, _ in group]),
        _float([amount for _, amount in group]),
      )
      for group in longer.values()
    ),
  )


def _words(starts: Any, vocab_size: int) -> Bool[Array, "V"] | None:
  if starts is None:
    return None
  starts = np.asarray(starts, bool)
  if starts.shape != (vocab_size,):
    raise ValueError(
      f"word_starts has shape {starts.shape}; pass one bool for each of the "
      f"{vocab_size} tokens of the vocabulary"
    )
  return jnp.asarray(starts)


# Sampling options: the range that each must lie in, and where it is off.
_RANGES: dict[str, tuple[float, float, float]] = {
  "temperature": (0.0, np.inf, 1.0),
  "top_p": (0.0, 1.0, 1.0),
  "min_p": (0.0, 1.0, 0.0),
  "typical_p": (0.0, 1.0, 1.0),
  "epsilon_cutoff": (0.0, 1.0, 0.0),
  "eta_cutoff": (0.0, 1.0, 0.0),
}


def _warps(values: Values) -> Warps:
  warps: dict[str, Any] = {}
  for name, (low, high, off) in _RANGES.items():
    value = _number(values, name, off)
    if value == off:
      continue
    if not low < value <= high and not (name == "top_p" and value == low):
      raise ValueError(f"{name}={value} must lie between {low} and {high}")
    warps[name] = _float(value)
  return Warps(top_k=_count("top_k", values, 50), **warps)
