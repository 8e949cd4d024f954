"""`generate`, with transformers' arguments, around the library's search."""

import dataclasses
import warnings
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from encdec.generation import generate as search
from encdec.generation.search.options import Processor, SearchOptions
from encdec.hub.facade import jitted, padding, search_inputs
from encdec.hub.facade.call import CallableModel
from encdec.hub.facade.inputs import SideInputs
from encdec.hub.facade.outputs import GenerateOutput, generate_output
from encdec.hub.facade.search_options import search_options
from encdec.hub.facade.supported_options import Request, request
from encdec.special_tokens import SpecialTokens
from encdec.types import Params

# One key, or one for each row; typed or raw.
RowKeys = Key[Array, "*B"] | UInt32[Array, "*B 2"]


class GeneratingModel(CallableModel):
  """A model with `generate`."""

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
    """Generates target tokens; compiles once a bucket of lengths and rows.

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
    assert special.start is not None
    states = None if encoder_outputs is None else encoder_outputs[0]
    source = search_inputs.search_source(
      self.module.config.encoder,
      (input_ids, attention_mask, position_ids, token_type_ids),
      states,
    )
    prompt = search_inputs.search_prompt(
      self.module.config.decoder,
      decoder_input_ids,
      decoder_attention_mask,
      source.segments.shape[0],
      special.start,
    )
    processors = self._processors(logits_processor)
    options, cache_length = self._options(
      asked, special, prompt, scoring, processors, word_starts
    )
    rules = options.rules
    search_inputs.check_source_rules(self.module.config, rules, source)
    for idle in asked.idle(scoring):
      warnings.warn(idle, stacklevel=2)
    key = self._sampling_key(prng_key, options.sample)
    return self._search(
      self._params_or(params),
      source,
      states,
      prompt,
      options=options,
      cache_length=cache_length,
      key=key,
      attentions=bool(asked.values.get("output_attentions", False)),
    )

  def _options(
    self,
    asked: Request,
    special: SpecialTokens,
    prompt: search.Prompt,
    scoring: str,
    processors: tuple[Processor, ...],
    word_starts: Any,
  ) -> tuple[SearchOptions, int]:
    """The search's options, and how many tokens its cache holds."""
    config = self.module.config.decoder
    longest, shortest = asked.lengths(
      prompt.tokens.shape[1], config.max_positions
    )
    assert special.pad is not None
    options = search_options(
      asked.values,
      max_length=longest,
      min_length=shortest,
      end_tokens=special.end,
      pad_token=special.pad,
      vocab_size=config.vocab_size,
      scoring=scoring,
      processors=processors,
      word_starts=word_starts,
    )
    return options, padding.length_bucket(longest - 1, config.max_positions)

  def _search(
    self,
    tree: Params,
    source: SideInputs,
    states: Float[Array, "B S W"] | None,
    prompt: search.Prompt,
    *,
    options: SearchOptions,
    cache_length: int,
    key: Key[Array, "*B"] | None,
    attentions: bool,
  ) -> GenerateOutput:
    """The texts of these sources, found in the shapes of their buckets."""
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
      cache_length=cache_length,
      encoder_states=states,
      key=key,
    )
    result = generate_output(output, options, prompt.tokens.shape[1], shape[0])
    if not attentions:
      return result
    # Rows that were only added to fill the bucket are dropped.
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
    """The caller's functions; warns of one that each call makes anew."""
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
