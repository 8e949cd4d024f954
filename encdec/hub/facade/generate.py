"""`generate`: Hugging Face's call around the library's search."""

import dataclasses
import warnings
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, UInt32

from encdec import axis_types
from encdec.config import StackConfig
from encdec.generation import generate as search
from encdec.generation.search.options import Processor, Rules
from encdec.hub.facade import jitted, padding
from encdec.hub.facade.call import CallableModel
from encdec.hub.facade.generation_options import request
from encdec.hub.facade.inputs import (
  SideInputs,
  as_ids,
  as_mask,
  check_shape,
  side_inputs,
)
from encdec.hub.facade.numpy_or_jax import AnyArray, array_module
from encdec.hub.facade.outputs import GenerateOutput, generate_output
from encdec.hub.facade.search_options import search_options

# One key, or one a row; typed or raw.
RowKeys = Key[Array, "*B"] | UInt32[Array, "*B 2"]


class GeneratingModel(CallableModel):
  """A model that writes targets."""

  def generate(
    self,
    input_ids: Any = None,
    generation_config: Any = None,
    prng_key: RowKeys | None = None,
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
    word_starts: Any = None,
    **overrides: Any,
  ) -> GenerateOutput:
    """Writes targets; compiles once for each bucket of lengths and rows.

    Greedy search, sampling, beam search, beam sampling and diverse beam
    search, by the options of GenerationConfig, whose defaults are PyTorch's. A
    prompt's length and that of `encoder_outputs` have no buckets: each new one
    compiles. What is on devices when it comes, each step's scores and
    attentions are padded and cut there, by small programs for every shape.

    Lengths count the start token. When no length is set anywhere, 20 tokens
    follow the prompt. Under jit the whole search is one device loop, the
    result is as long as the bucket, and a prompt must begin with the start
    token; elsewhere one is put before it, and the result ends with its longest
    row.

    Args:
      prng_key: of sampling, without a default: row i draws with
        `fold_in(prng_key, i)`; or one key a row.
      trace: True; run under `jax.disable_jit()` to debug.
      logits_processor: a function, or several, of (length so far `[B, N]`,
        tokens `[B, N, C]`, scores `[B, N, V]`) to scores; pure, it runs under
        jit. N are the beams, or the texts a source when sampling.
      attention_mask: 0 at padding; default: ones, whatever the ids.
      decoder_input_ids: a prompt.
      encoder_outputs: of `encode`, in place of `input_ids`.
      scoring: of beams: "pytorch", or "gnmt" with ((5 + length) / 6)^penalty.
      word_starts: True for each token of the vocabulary that begins a word:
        beams that repeat three words are dropped, as BertSum does.
      **overrides: options of GenerationConfig.

    Raises:
      TypeError: an option that does not exist.
      ValueError: an option that is not supported or out of its range; options
        that contradict each other; a special token that is set nowhere;
        sampling without a key.
    """
    if not trace:
      raise ValueError(
        "trace=False is not supported; debug under `with jax.disable_jit():`"
      )
    asked = request(self.generation_config, generation_config, overrides)
    asked.check()
    self._check_config_options()
    special = self._tokens(asked)
    assert special.start is not None and special.pad is not None
    states = None if encoder_outputs is None else encoder_outputs[0]
    source = self._search_source(
      (input_ids, attention_mask, position_ids, token_type_ids), states
    )
    prompt = self._prompt(
      decoder_input_ids,
      decoder_attention_mask,
      source.segments.shape[0],
      special.start,
    )
    config = self.module.config.decoder
    longest, shortest = asked.lengths(
      prompt.tokens.shape[1], config.max_positions
    )
    options = search_options(
      asked.values,
      max_length=longest,
      min_length=shortest,
      end_tokens=special.end,
      pad_token=special.pad,
      vocab_size=config.vocab_size,
      scoring=scoring,
      processors=self._processors(logits_processor),
      word_starts=word_starts,
    )
    self._check_source_rules(options.rules, source)
    for idle in asked.idle(scoring):
      warnings.warn(idle, stacklevel=2)
    key = self._sampling_key(prng_key, options.sample)
    tree = self._params_or(params)
    shape = source.segments.shape
    source, states, prompt, key = padding.in_buckets(
      self.module.config.encoder, source, states, prompt, key
    )
    if states is None and source.types is not None:
      states = self._encoded(tree, source)
    output = search.generate(
      self.module,
      self._decoding_params(tree),
      source.tokens,
      source.segments,
      source.positions if states is None else None,
      options=options,
      prompt=prompt,
      cache_length=padding.length_bucket(longest - 1, config.max_positions),
      encoder_states=states,
      key=key,
    )
    result = generate_output(output, options, prompt.tokens.shape[1], shape[0])
    if not asked.values.get("output_attentions", False):
      return result
    # Without the padding to buckets.
    lengths = output.lengths[: shape[0] * options.num_returned]
    return self._with_attentions(
      result, lengths, shape, source, states, prompt, tree
    )

  def _with_attentions(
    self, result, lengths, shape, source, states, prompt, tree
  ) -> GenerateOutput:
    """Adds the attentions of one pass over the texts that were found."""
    if states is None:
      states = self._encoded(tree, source)
    batch, sources = shape
    rows, length = result.sequences.shape
    states, segments, real = (
      jnp.repeat(array[:batch], rows // batch, axis=0)
      for array in (
        states[:, :sources],
        source.segments[:, :sources],
        prompt.segments,
      )
    )
    index = jnp.arange(length, dtype=jnp.int32)[None]
    given = real.shape[1]
    real = jnp.pad(real, ((0, 0), (0, length - given)), constant_values=1)
    decoded: Any = self.decode(
      result.sequences,
      (states,),
      encoder_attention_mask=segments,
      decoder_attention_mask=jnp.where(index < lengths[:, None], real, 0),
      output_attentions=True,
      return_dict=True,
      params=tree,
    )
    return dataclasses.replace(
      result,
      decoder_attentions=decoded.attentions,
      cross_attentions=decoded.cross_attentions,
    )

  def _processors(self, given: Any) -> tuple[Processor, ...]:
    """The caller's functions; warns of one that is made anew at each call."""
    if given is None:
      return ()
    functions = tuple(given) if isinstance(given, list | tuple) else (given,)
    by_code: dict[Any, set[Any]] = {}
    for function in functions:
      if not callable(function) or not isinstance(function, Hashable):
        raise TypeError(
          f"logits_processor={function!r} is no function of (length, tokens, "
          "scores), or one that cannot be hashed, as a program's must be"
        )
      code = getattr(function, "__code__", type(function))
      seen = self._seen_processors.get(code, set())
      if seen and function not in seen:
        warnings.warn(
          f"logits_processor {function!r} is another object than at the last "
          "call, so the search compiles again; make it once and keep it",
          stacklevel=3,
        )
      by_code.setdefault(code, set()).add(function)
    for code, together in by_code.items():
      self._seen_processors.setdefault(code, set()).update(together)
    return functions

  def _check_source_rules(self, rules: Rules, source: SideInputs) -> None:
    for name, value in (
      ("encoder_repetition_penalty", rules.encoder_repetition_penalty),
      ("encoder_no_repeat_ngram_size", rules.encoder_no_repeat_ngram_size),
    ):
      if value is None or (isinstance(value, int) and not value):
        continue
      config = self.module.config
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

  def _sampling_key(
    self, key: RowKeys | None, sample: bool
  ) -> Key[Array, "*B"] | None:
    if not sample:
      return None
    if key is None:
      raise ValueError(
        "do_sample=True draws with prng_key, which has no default: pass "
        "prng_key=jax.random.key(seed)"
      )
    if not hasattr(key, "dtype"):
      raise TypeError(f"prng_key={key!r} is no key: pass jax.random.key(seed)")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
      return key
    return jax.random.wrap_key_data(key)

  def _encoded(self, tree, source: SideInputs):
    return jitted.encode(self.module, tree, source, None, False, False).states

  def _search_source(
    self, given: tuple[Any, Any, Any, Any], states: Any
  ) -> SideInputs:
    """The source, or what is known of it beside its states."""
    ids, mask, position_ids, types = given
    config = self.module.config.encoder
    if states is None:
      source = side_inputs(
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

  def _prompt(
    self, ids: Any, mask: Any, batch: int, start: int
  ) -> search.Prompt:
    if ids is None and mask is not None:
      raise ValueError(
        "decoder_attention_mask is of a prompt: pass decoder_input_ids too"
      )
    if ids is None:
      return search.start_prompt(batch, start)
    config = self.module.config.decoder
    ids = as_ids(ids, "decoder_input_ids", config.vocab_size)
    segments, dense = as_mask(mask, ids.shape, "decoder_input_ids")
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


def _encoded_source(
  config: StackConfig, ids: Any, mask: Any, states: Any
) -> SideInputs:
  """The source of states that `encode` gave; its ids are for rules alone."""
  if getattr(states, "ndim", 0) != 3 or states.shape[2] != config.width:
    raise ValueError(
      f"encoder_outputs[0] of shape {list(np.shape(states))} must be "
      f"[batch, length, {config.width}]: pass what encode() returned"
    )
  axis_types.check({"encoder_outputs": states})
  segments, dense = as_mask(mask, states.shape[:2], "the source")
  if ids is not None:
    ids = as_ids(ids, "input_ids", config.vocab_size)
    check_shape(ids, segments.shape, "input_ids beside encoder_outputs")
  return SideInputs(ids, segments, segments, segments, dense=dense)


def _begun(
  ids: Int[AnyArray, "B P"], segments: Int[AnyArray, "B P"], start: int
) -> tuple[Int[AnyArray, "B Q"], Int[AnyArray, "B Q"]]:
  """Puts the start token before a prompt none of whose rows begins with it."""
  if np.any(np.asarray(ids[:, 0]) == start):
    return ids, segments
  xp = array_module(ids, segments)
  first = np.full((ids.shape[0], 1), start, np.int32)
  return (
    xp.concatenate([first, ids], axis=1),
    xp.concatenate([np.ones_like(first), segments], axis=1),
  )
