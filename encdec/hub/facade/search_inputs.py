"""The sources and prompts of a search, from the arguments of `generate`."""

from typing import Any

import numpy as np
from jaxtyping import Int

from encdec import explicit_axes
from encdec.config import EncDecConfig, StackConfig
from encdec.generation import generate as search
from encdec.generation.search.options import ScoreRules
from encdec.hub.facade import inputs, jitted
from encdec.hub.facade.inputs import SideInputs
from encdec.hub.facade.numpy_or_jax import AnyArray, array_module


def search_source(
  config: StackConfig, given: tuple[Any, Any, Any, Any], states: Any
) -> SideInputs:
  """The source's ids and masks, checked; with given states, the masks alone."""
  ids, mask, position_ids, types = given
  if states is None:
    source = inputs.side_inputs(
      config, ids, mask, position_ids, types=types, ids_name="input_ids"
    )
  else:
    source = _encoded_source(config, ids, mask, states)
  if source.dense is not None:
    raise ValueError("attention_mask of generate() must be [batch, length]")
  if 0 in source.segments.shape:
    raise ValueError(
      f"{'input_ids' if states is None else 'encoder_outputs'} of shape "
      f"{list(source.segments.shape)} hold no source: pass at least one row "
      "with a token"
    )
  if jitted.is_traced(source):
    return source
  if (empty := ~np.any(np.asarray(source.segments), axis=1)).any():
    raise ValueError(
      f"source {int(np.argmax(empty))} is empty: attention_mask has no 1 in "
      "it; leave that row out"
    )
  return source


def search_prompt(
  config: StackConfig, ids: Any, mask: Any, batch: int, start: int
) -> search.Prompt:
  """The given prompt, with the start token put first, or that token alone."""
  if ids is None and mask is not None:
    raise ValueError(
      "decoder_attention_mask is of a prompt: pass decoder_input_ids too"
    )
  if ids is None:
    return search.start_prompt(batch, start)
  ids = inputs.as_ids(ids, "decoder_input_ids", config.vocab_size)
  segments, dense = inputs.as_mask(mask, ids.shape, "decoder_input_ids")
  if dense is not None:
    raise ValueError("decoder_attention_mask must be [batch, length] here")
  if ids.shape[0] != batch or not ids.shape[1]:
    raise ValueError(
      f"decoder_input_ids of shape {list(ids.shape)} for {batch} sources: "
      "pass a prompt of at least one token for each"
    )
  if not jitted.is_traced(ids):
    ids, segments = _begun(ids, segments, start)
  return search.Prompt(ids, segments)


def check_source_rules(
  config: EncDecConfig, rules: ScoreRules, source: SideInputs
) -> None:
  """Raises ValueError if a rule about the source's tokens cannot be applied."""
  for name, value in (
    ("encoder_repetition_penalty", rules.encoder_repetition_penalty),
    ("encoder_no_repeat_ngram_size", rules.encoder_no_repeat_ngram_size),
  ):
    if value is None or (isinstance(value, int) and not value):
      continue
    if config.encoder.vocab_size != config.decoder.vocab_size:
      raise ValueError(
        f"{name} needs one vocabulary on both sides, and they have "
        f"{config.encoder.vocab_size} and {config.decoder.vocab_size} "
        "tokens; leave it out"
      )
    if source.tokens is None:
      raise ValueError(
        f"{name} looks at the source's tokens: pass input_ids beside "
        "encoder_outputs"
      )


def _encoded_source(
  config: StackConfig, ids: Any, mask: Any, states: Any
) -> SideInputs:
  """The source's masks beside states of `encode`; ids are only for rules."""
  if getattr(states, "ndim", 0) != 3 or states.shape[2] != config.width:
    raise ValueError(
      f"encoder_outputs[0] of shape {list(np.shape(states))} must be "
      f"[batch, length, {config.width}]: pass what encode() returned"
    )
  explicit_axes.check({"encoder_outputs": states})
  segments, dense = inputs.as_mask(mask, states.shape[:2], "the source")
  if ids is not None:
    ids = inputs.as_ids(ids, "input_ids", config.vocab_size)
    inputs.check_shape(ids, segments.shape, "input_ids beside encoder_outputs")
  return SideInputs(ids, segments, segments, segments, dense=dense)


def _begun(
  ids: Int[AnyArray, "B P"], segments: Int[AnyArray, "B P"], start: int
) -> tuple[Int[AnyArray, "B Q"], Int[AnyArray, "B Q"]]:
  """Puts the start token first, unless a row of the prompt begins with it."""
  if np.any(np.asarray(ids[:, 0]) == start):
    return ids, segments
  xp = array_module(ids, segments)
  first = np.full((ids.shape[0], 1), start, np.int32)
  return (
    xp.concatenate([first, ids], axis=1),
    xp.concatenate([np.ones_like(first), segments], axis=1),
  )
