"""Generation with a model: prepares caches and runs a search over its steps."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

from encdec import sharding
from encdec.generation import (
  beam,
  groups,
  hypotheses,
  loop,
  options,
  sampling,
)
from encdec.generation.groups import Groups
from encdec.generation.options import SearchOptions
from encdec.generation.sampling import Samples
from encdec.generation.search import Search
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import CrossCache, Params, SelfCache

# Up to here a beam attends to the slots of all of its source's beams, masked,
# and no cache ever moves; beyond, that costs more than moving it.
SHARED_BEAMS = 16


@struct.dataclass
class Generated:
  """R texts for each of B sources, best first, as rows of B * R.

  Attributes:
    tokens: the prompt included, padding after the end token.
    lengths: up to and with the end token, or to the maximum length.
    steps: that were taken until all was found.
    scores: of beams: the sum of log-probabilities over the length's penalty.
    parents: of beams, where scores are kept: the beam, of its source, that
      each token continued; -1 at the prompt and after the end.
    step_scores, step_logits: of every step, for all N beams or texts.
  """

  tokens: Int[Array, "BR C"]
  lengths: Int[Array, "BR"]
  steps: Int[Array, ""]
  scores: Float[Array, "BR"] | None = None
  parents: Int[Array, "BR C"] | None = None
  step_scores: Float[Array, "B T N V"] | None = None
  step_logits: Float[Array, "B T N V"] | None = None


@struct.dataclass
class Prompt:
  """Tokens that every row begins with; segment 0 is padding, on the left."""

  tokens: Int[Array, "B P"]
  segments: Int[Array, "B P"]
  positions: Int[Array, "B P"]


def start_prompt(batch: int, start_token: int) -> Prompt:
  """The prompt of one start token."""
  ones = jnp.ones((batch, 1), jnp.int32)
  return Prompt(ones * start_token, ones, jnp.zeros_like(ones))


def row_keys(key: Key[Array, "*B"], batch: int) -> Key[Array, "B"]:
  """A key for each row: `fold_in(key, row)`, or the keys that are given.

  Raises:
    ValueError: another number of keys than rows.
  """
  if key.ndim == 0:
    rows = jnp.arange(batch, dtype=jnp.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
  if key.shape != (batch,):
    raise ValueError(
      f"{key.shape} keys for {batch} rows: pass one key, or one a row"
    )
  return key


def generate(
  module: FlaxEncoderDecoderModule,
  decoding_params: Params,
  encoder_tokens: Int[Array, "B S"] | None,
  encoder_segments: Int[Array, "B S"],
  encoder_positions: Int[Array, "B S"] | None,
  *,
  options: SearchOptions,
  prompt: Prompt,
  cache_length: int,
  encoder_states: Float[Array, "B S W"] | None = None,
  key: Key[Array, "*B"] | None = None,
) -> Generated:
  """Continues the prompt, with as many texts a source as `options` ask for.

  Compiles once for each module, shape, `cache_length` and shape of the
  options; the options' values may change freely. May be called under jit.

  Args:
    decoding_params: `unstack(expand(stored, config), module.dtype)`, made
      once for each version of the weights.
    encoder_segments: 0 at padding, to which no token attends.
    cache_length: slots of the cache, at least `options.max_length - 1`: the
      last token is never read. C is one more.
    encoder_states: in place of tokens, as `encode` gave them. Rules that look
      at the source need its tokens all the same.
    key: of sampling: one (row i draws with `fold_in(key, i)`) or one a row;
      a step draws with `fold_in(row's key, step)`.

  Raises:
    ValueError: options that contradict each other; lengths that exceed the
      cache or the position table; a special id outside the vocabulary.
  """
  _check(module, options, prompt, cache_length)
  keys = None
  if options.sample:
    if key is None:
      raise ValueError("sampling needs a key: pass key=jax.random.key(seed)")
    keys = row_keys(key, encoder_segments.shape[0])
  cross = _encode(
    module,
    decoding_params,
    encoder_tokens if encoder_states is None else None,
    encoder_segments,
    encoder_positions,
    encoder_states,
  )
  search = Search(
    options,
    source=encoder_tokens,
    source_real=encoder_segments != 0,
    prompt=prompt.tokens.shape[1],
    vocab_size=module.config.decoder.vocab_size,
    rules=module.rules,
  )
  progress = _start(
    module, cache_length, decoding_params, cross, prompt, search, keys
  )
  progress = _run(module, decoding_params, cross, prompt, search, progress)
  return _result(module, search, progress)


def _check(
  module: FlaxEncoderDecoderModule,
  asked: SearchOptions,
  prompt: Prompt,
  cache_length: int,
) -> None:
  config = module.config.decoder
  options.check(asked, config.vocab_size)
  if cache_length > config.max_positions:
    raise ValueError(
      f"a generated length of {cache_length} exceeds the decoder's position "
      f"table ({config.max_positions}); lower max_length"
    )
  prompt_length = prompt.tokens.shape[1]
  longest = asked.max_length
  if not isinstance(longest, Tracer) and not (
    prompt_length < int(longest) <= cache_length + 1
  ):
    raise ValueError(
      f"max_length={int(longest)} must exceed the prompt ({prompt_length} "
      f"tokens) and fit the cache ({cache_length} slots, one token more)"
    )
  for name, ids in (
    ("start", prompt.tokens[:, :1]),
    ("end", jnp.asarray(asked.end_tokens, jnp.int32)),
    ("pad", asked.pad_token),
  ):
    if isinstance(ids, Tracer):
      continue
    for token in jax.device_get(ids).reshape(-1).tolist():
      if not 0 <= token < config.vocab_size:
        raise ValueError(
          f"{name} token {token} is outside the decoder's vocabulary of "
          f"{config.vocab_size}; set another {name} token"
        )


# What steps read comes from another program than they run in: within one, the
# compiler may lay it out to suit its making and transpose it at every step.
@functools.partial(jax.jit, static_argnames="module")
def _encode(
  module: FlaxEncoderDecoderModule,
  params: Params,
  tokens: Int[Array, "B S"] | None,
  segments: Int[Array, "B S"],
  positions: Int[Array, "B S"] | None,
  states: Float[Array, "B S W"] | None,
) -> CrossCache:
  apply: Any = functools.partial(module.apply, {"params": params})
  if states is None:
    states = apply(
      tokens=tokens, segments=segments, positions=positions, method="encode"
    ).states
  return apply(states, segments, method="cross_cache")


@functools.partial(
  jax.jit, static_argnames="module", donate_argnames="progress"
)
def _run(
  module: FlaxEncoderDecoderModule,
  params: Params,
  cross: CrossCache,
  prompt: Prompt,
  search: Search,
  progress: loop.Progress,
) -> loop.Progress:
  apply: Any = functools.partial(module.apply, {"params": params})

  def decode_step(tokens, view, cache):
    positions = _positions(module, tokens, view.query_positions, prompt)
    view = dataclasses.replace(view, query_positions=positions)
    logits, cache = apply(
      tokens=tokens, view=view, cache=cache, cross=cross, method="decode_step"
    )
    # Whole rows of the vocabulary are ranked: within a row's device.
    axes = ("batch", None, None)
    return sharding.constrain(logits, axes, module.rules), cache

  return loop.run(decode_step, progress, search)


def _positions(
  module: FlaxEncoderDecoderModule,
  tokens: Int[Array, "B N"],
  index: Int[Array, "B N"],
  prompt: Prompt,
) -> Int[Array, "B N"]:
  """The prompt's own, then the index in the row.

  Where positions come from ids, as RoBERTa's, a written pad has none.
  """
  config, last = module.config.decoder, prompt.tokens.shape[1] - 1
  positions = index
  if config.positions_from_ids:
    positions = jnp.where(tokens == config.pad_token_id, -1, positions)
  return jnp.where(index == last, prompt.positions[:, -1:], positions)


@functools.partial(jax.jit, static_argnames=("module", "slots"))
def _start(
  module: FlaxEncoderDecoderModule,
  slots: int,
  params: Params,
  cross: CrossCache,
  prompt: Prompt,
  search: Search,
  keys: Key[Array, "B"] | None,
) -> loop.Progress:
  """A search whose cache holds the prompt but for its last token."""
  apply: Any = functools.partial(module.apply, {"params": params})
  options = search.options
  beams = options.num_beams > 1
  texts = hypotheses.start(
    prompt.tokens,
    prompt.segments != 0,
    width=options.width,
    slots=slots,
    pad_token=options.pad_token,
    reorder=beams and options.num_beams <= SHARED_BEAMS,
  )
  batch, length = prompt.tokens.shape
  cache = apply(batch, slots, options.width, texts.apart, method="empty_cache")
  if length > 1:
    _, held = apply(
      tokens=prompt.tokens[:, :-1],
      segments=prompt.segments[:, :-1],
      positions=prompt.positions[:, :-1],
      cross=cross,
      cache_length=length - 1,
      method="prefill",
    )
    cache = _spread(held, cache, options.width, texts.apart)
  if options.num_groups > 1:
    state = groups.start(
      texts, options.num_groups, keep_parents=options.keep_scores
    )
  elif beams:
    state = beam.start(texts, keys, keep_parents=options.keep_scores)
  else:
    state = sampling.start(texts, keys)
  shape = (batch, slots, options.width, module.config.decoder_vocab_rows)
  return loop.Progress(
    state=state,
    cache=cache,
    slot=jnp.asarray(length - 1, jnp.int32),
    scores=jnp.zeros(shape, jnp.float32) if options.keep_scores else None,
    logits=jnp.zeros(shape, jnp.float32) if options.keep_logits else None,
  )


def _spread(
  held: SelfCache, cache: SelfCache, beams: int, apart: bool
) -> SelfCache:
  """Puts a prompt's keys into the first slots of one beam, or of each."""

  def put(part: Array, whole: Array) -> Array:
    if apart:
      part = jnp.repeat(part, beams, axis=1)
      return jax.lax.dynamic_update_slice(whole, part, (0,) * whole.ndim)
    batch, groups, slots, width = whole.shape
    by_beam = whole.reshape(batch, groups, slots // beams, beams, width)
    by_beam = by_beam.at[:, :, : part.shape[2], 0].set(part)
    return by_beam.reshape(whole.shape)

  return jax.tree.map(put, held, cache)


@functools.partial(jax.jit, static_argnames="module")
def _result(
  module: FlaxEncoderDecoderModule, search: Search, progress: loop.Progress
) -> Generated:
  state, returned = progress.state, search.options.num_returned
  if isinstance(state, Samples):
    tokens, lengths = state.texts.tokens, state.lengths
    scores = parents = None
  else:
    found = state.finished
    if isinstance(state, Groups):
      found = groups.best(state, returned)
    tokens, lengths = found.tokens, found.lengths
    scores, parents = found.scores, found.parents

  def rows(array: Array | None) -> Any:
    if array is None:
      return None
    array = array[:, :returned].reshape(-1, *array.shape[2:])
    axes = ("batch", *(None,) * (array.ndim - 1))
    return sharding.constrain(array, axes, module.rules)

  return Generated(
    tokens=rows(tokens),
    lengths=rows(lengths),
    steps=jnp.max(state.texts.length) - search.prompt,
    scores=rows(scores),
    parents=rows(parents),
    step_scores=progress.scores,
    step_logits=progress.logits,
  )
