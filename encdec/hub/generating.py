"""`generate`: Hugging Face's call around the library's search."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from transformers import GenerationConfig

from encdec import generate as search
from encdec.hub import forward
from encdec.hub.base import RandomKey
from encdec.hub.calls import CallableModel
from encdec.hub.generation import bucket, request
from encdec.hub.inputs import (
  SideInputs,
  as_ids,
  as_mask,
  default_positions,
  side_inputs,
)
from encdec.hub.outputs import GenerateOutput


class GeneratingModel(CallableModel):
  """A model that writes targets."""

  def generate(
    self,
    input_ids: Any = None,
    generation_config: GenerationConfig | None = None,
    prng_key: RandomKey | None = None,
    trace: bool = True,
    params: Mapping[str, Any] | None = None,
    logits_processor: Any = None,
    *,
    attention_mask: Any = None,
    position_ids: Any = None,
    token_type_ids: Any = None,
    decoder_input_ids: Any = None,
    decoder_attention_mask: Any = None,
    encoder_outputs: Any = None,
    scoring: str = "pytorch",
    **overrides: Any,
  ) -> GenerateOutput:
    """Greedy search; compiles once for each bucket of lengths.

    A prompt's length and that of `encoder_outputs` have no buckets: each new
    one compiles.

    Lengths count the start token. When no length is set anywhere, 20 tokens
    follow the prompt. Under jit the whole search is one device loop, the
    result is as long as the bucket, and a prompt must begin with the start
    token; elsewhere one is put before it, and the result ends with its longest
    row.

    Args:
      prng_key: for sampling; greedy search draws nothing.
      trace: True; run under `jax.disable_jit()` to debug.
      attention_mask: 0 at padding; default: ones, whatever the ids.
      decoder_input_ids: a prompt.
      encoder_outputs: of `encode`, in place of `input_ids`.
      **overrides: options of GenerationConfig.

    Raises:
      TypeError: an option that does not exist.
      ValueError: an option that is not supported; lengths that contradict each
        other; a special token that is set nowhere.
    """
    del prng_key
    if logits_processor:
      raise ValueError("logits_processor is not supported yet; leave it out")
    if not trace:
      raise ValueError(
        "trace=False is not supported; debug under `with jax.disable_jit():`"
      )
    if scoring != "pytorch":
      raise ValueError(f"scoring={scoring!r} is not supported; use 'pytorch'")
    asked = request(self.generation_config, generation_config, overrides)
    asked.check()
    found = self._tokens(asked)
    assert found.start is not None and found.pad is not None
    tokens = search.SearchTokens(found.start, found.end, found.pad)
    states = None if encoder_outputs is None else encoder_outputs[0]
    source = self._search_source(
      (input_ids, attention_mask, position_ids, token_type_ids), states
    )
    prompt = self._prompt(
      decoder_input_ids,
      decoder_attention_mask,
      source.segments.shape[0],
      tokens.start,
    )
    limit = self.module.config.decoder.max_positions
    longest, shortest = asked.lengths(prompt.tokens.shape[1], limit)
    tree = self._params_or(params)
    if states is None and source.types is not None:
      states = self._encoded(tree, source)
    output = search.generate(
      self.module,
      self._decoding_params(tree),
      source.tokens if states is None else None,
      source.segments,
      source.positions if states is None else None,
      tokens=tokens,
      cache_length=bucket(longest, limit),
      max_length=longest,
      min_length=shortest,
      prompt=prompt,
      encoder_states=states,
    )
    if forward.is_traced(output.tokens):
      return GenerateOutput(sequences=output.tokens)
    length = int(jnp.max(output.lengths))
    return GenerateOutput(sequences=output.tokens[:, :length])

  def _encoded(self, tree, source: SideInputs):
    return forward.encode(self.module, tree, source, None, False, False).states

  def _search_source(
    self, given: tuple[Any, Any, Any, Any], states: Any
  ) -> SideInputs:
    """The source, padded to its bucket where shapes are not the caller's."""
    ids, mask, position_ids, types = given
    config = self.module.config.encoder
    if states is not None:
      segments, dense = as_mask(mask, states.shape[:2], "the source")
      if dense is not None:
        raise ValueError("attention_mask of generate() must be [batch, length]")
      return SideInputs(None, segments, segments, segments)
    source = side_inputs(
      config, ids, mask, position_ids, types=types, ids_name="input_ids"
    )
    if source.dense is not None:
      raise ValueError("attention_mask of generate() must be [batch, length]")
    if forward.is_traced(source):
      return source
    more = bucket(source.segments.shape[1], config.max_positions)
    more -= source.segments.shape[1]
    return jax.tree.map(
      lambda leaf: jnp.pad(leaf, ((0, 0), (0, max(more, 0)))), source
    )

  def _prompt(
    self, ids: Any, mask: Any, batch: int, start: int
  ) -> search.Prompt:
    if ids is None:
      return search.start_prompt(batch, start)
    config = self.module.config.decoder
    ids = as_ids(ids, "decoder_input_ids", config.vocab_size)
    segments, dense = as_mask(mask, ids.shape, "decoder_input_ids")
    if dense is not None:
      raise ValueError("decoder_attention_mask must be [batch, length] here")
    if not forward.is_traced(ids):
      ids, segments = _begun(ids, segments, start)
    positions = default_positions(config, ids, ids.shape)
    return search.Prompt(ids, segments, positions)


def _begun(
  ids: Int[Array, "B P"], segments: Int[Array, "B P"], start: int
) -> tuple[Int[Array, "B Q"], Int[Array, "B Q"]]:
  """Puts the start token before a prompt none of whose rows begins with it."""
  if np.any(np.asarray(ids[:, 0]) == start):
    return ids, segments
  first = jnp.full_like(ids[:, :1], start)
  return (
    jnp.concatenate([first, ids], axis=1),
    jnp.concatenate([jnp.ones_like(first), segments], axis=1),
  )
