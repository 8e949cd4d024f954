"""The compiled programs of generation: encode, start, run, refill, result."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key

from encdec import explicit_axes, sharding
from encdec.generation import scheduler
from encdec.generation.search import (
  diverse_beam,
  hypotheses,
  loop,
  sampling,
  topk,
)
from encdec.generation.search.context import SearchContext
from encdec.layers import kv_cache as cache_lib
from encdec.masks import token_positions
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import CrossCache, DecodeView, Params, SelfCache

# Up to here a beam attends to the slots of all of its source's beams, masked,
# and no cache ever moves; beyond, that costs more than moving it.
SHARED_BEAMS = 16

# Numbers that a core's cache holds from one layer to the next.
CACHED = 2**18


@struct.dataclass
class Generated:
  """R texts for each of B sources, best first, as rows of B * R.

  Attributes:
    tokens: the prompt included, padding after the end token.
    lengths: up to and with the end token, or to the maximum length.
    steps: that were taken until all was found.
    scores: the sum of log-probabilities over the length's penalty; None
      without beams, unless the options ask for it.
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
  """Tokens that every row begins with; segment 0 is padding, on the left.

  Without positions they are the model's own, see `masks.token_positions`; what
  is written after has those in any case.
  """

  tokens: Int[Array, "B P"]
  segments: Int[Array, "B P"]
  positions: Int[Array, "B P"] | None = None


def call(program: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
  """What a jitted program gives for arguments, compiled as JAX sees fit."""
  return program(*args, **kwargs)


# What steps read comes from another program than they run in: within one, the
# compiler may lay it out to suit its making and transpose it at every step.
@functools.partial(jax.jit, static_argnames="module")
def encode(
  module: FlaxEncoderDecoderModule,
  params: Params,
  tokens: Int[Array, "B S"] | None,
  segments: Int[Array, "B S"],
  positions: Int[Array, "B S"] | None,
  states: Float[Array, "B S W"] | None,
  types: Int[Array, "B S"] | None = None,
) -> CrossCache:
  """The keys and values of the source, from its tokens or its states."""
  explicit_axes.check(
    {
      "encoder_tokens": tokens,
      "encoder_segments": segments,
      "encoder_states": states,
    }
  )
  apply: Any = functools.partial(module.apply, {"params": params})

  def encode_rows(rows: tuple[Array | None, ...]) -> CrossCache:
    tokens, segments, positions, states, types = rows
    if states is None:
      states = apply(
        tokens=tokens,
        segments=segments,
        positions=positions,
        types=types,
        method="encode",
      ).states
    return apply(states, segments, method="cross_cache")

  sources = tokens, segments, positions, states, types
  batch, length = segments.shape
  rows = _rows_at_once(batch, length * module.config.encoder.width, module)
  if module.rules is not None or rows == batch:
    return encode_rows(sources)
  parts = jax.lax.map(
    encode_rows,
    jax.tree.map(lambda leaf: leaf.reshape(-1, rows, *leaf.shape[1:]), sources),
  )
  return jax.tree.map(lambda leaf: leaf.reshape(batch, *leaf.shape[2:]), parts)


def _rows_at_once(
  batch: int, size: int, module: FlaxEncoderDecoderModule
) -> int:
  """The number of rows, of `size` numbers, that are encoded at once.

  It divides the batch. Accelerators take all of them; a CPU is faster with what
  its caches hold, unless those were very few.
  """
  most = max(1, CACHED * module.cores // size)
  if module.platform != "cpu" or batch <= most:
    return batch
  parts = (n for n in range(most, 0, -1) if batch % n == 0 and 4 * n >= most)
  return next(parts, batch)


@functools.partial(
  jax.jit, static_argnames="module", donate_argnames="loop_state"
)
def run(
  module: FlaxEncoderDecoderModule,
  params: Params,
  cross: CrossCache,
  prompt: Prompt,
  search: SearchContext,
  loop_state: loop.LoopState,
  enough: Int[Array, ""],
) -> loop.LoopState:
  """Searches until `enough` sources are done."""
  apply: Any = functools.partial(module.apply, {"params": params})

  def decode_step(tokens, view, cache):
    view = _of_prompt(view, prompt)
    logits, cache = apply(
      tokens=tokens, view=view, cache=cache, cross=cross, method="decode_step"
    )
    if not search.vocab_major(logits):
      logits = topk.pad_to_tiles(logits)
    # Whole rows of the vocabulary are ranked: within a row's device.
    axes = ("batch", None, None)
    return sharding.constrain(logits, axes, module.rules), cache

  return loop.run(decode_step, loop_state, search, enough)


def _of_prompt(view: DecodeView, prompt: Prompt) -> DecodeView:
  """The view, with the prompt's own position for its last token."""
  if prompt.positions is None:
    return view
  # A slot's position among the keys is its index in the row.
  index = jax.lax.dynamic_index_in_dim(view.key_positions, view.slot, axis=1)
  positions = jnp.where(
    index == prompt.tokens.shape[1] - 1,
    prompt.positions[:, -1:],
    view.query_positions,
  )
  return dataclasses.replace(view, query_positions=positions)


@functools.partial(jax.jit, static_argnames=("module", "slots"))
def start(
  module: FlaxEncoderDecoderModule,
  slots: int,
  params: Params,
  cross: CrossCache,
  prompt: Prompt,
  search: SearchContext,
  keys: Key[Array, "B"] | None,
) -> loop.LoopState:
  """A search whose cache holds the prompt but for its last token.

  Rows whose source has no token are done.
  """
  apply: Any = functools.partial(module.apply, {"params": params})
  options = search.options
  state = _beginning(slots, prompt, search, keys)
  empty = ~jnp.any(cross.segments != 0, axis=1)
  state = dataclasses.replace(state, done=state.done | empty)
  texts = state.texts
  batch, length = prompt.tokens.shape
  cache = apply(
    batch, slots, options.width, texts.separate_beams, method="empty_cache"
  )
  if length > 1:
    positions = prompt.positions
    if positions is None:
      unplaced = module.config.decoder.unplaced_token
      positions = token_positions(prompt.tokens, unplaced)
    _, held = apply(
      tokens=prompt.tokens[:, :-1],
      segments=prompt.segments[:, :-1],
      positions=positions[:, :-1],
      cross=cross,
      cache_length=length - 1,
      method="prefill",
    )
    cache = SelfCache(
      tuple(
        cache_lib.write_prompt(*pair, options.width, texts.separate_beams)
        for pair in zip(held.layers, cache.layers, strict=True)
      )
    )
  shape = (
    batch,
    slots,
    options.width,
    topk.padded_size(module.config.decoder_vocab_rows),
  )
  return loop.LoopState(
    state=state,
    cache=cache,
    slot=jnp.asarray(length - 1, jnp.int32),
    scores=jnp.zeros(shape, jnp.float32) if options.keep_scores else None,
    logits=jnp.zeros(shape, jnp.float32) if options.keep_logits else None,
  )


def _beginning(
  slots: int,
  prompt: Prompt,
  search: SearchContext,
  keys: Key[Array, "B"] | None,
  slot: Int[Array, ""] | None = None,
) -> loop.State:
  """Before any step, the prompt's first token being at `slot` (or 0)."""
  options = search.options
  texts = hypotheses.start(
    prompt.tokens,
    prompt.segments != 0,
    width=options.width,
    slots=slots,
    pad_token=options.pad_token,
    reorder=1 < options.num_beams <= SHARED_BEAMS,
    origin=slot,
  )
  return loop.start(texts, options, keys)


@functools.partial(
  jax.jit, static_argnames="module", donate_argnames=("loop_state", "cross")
)
def refill(
  module: FlaxEncoderDecoderModule,
  prompt: Prompt,
  search: SearchContext,
  loop_state: loop.LoopState,
  cross: CrossCache,
  waiting: CrossCache,
  taken: Int[Array, "B"],
) -> tuple[loop.LoopState, CrossCache]:
  """Gives rows to waiting sources, and starts their searches.

  As in `start`, a source without a token is done.

  Args:
    prompt: of one token.
    taken: for each row which of its own device's waiting rows it takes; -1
      keeps the row as it is.
  """
  state, slots = loop_state.state, loop_state.state.texts.readable.shape[1]
  fresh = _beginning(slots, prompt, search, None, loop_state.slot)
  state = jax.tree.map(
    lambda new, old: hypotheses.select_rows(taken >= 0, new, old), fresh, state
  )
  # Besides keys and values there are only the segments, of rank 2.
  axes = jax.tree.map(
    lambda leaf: ("batch", "kv_heads") if leaf.ndim > 2 else ("batch",),
    cross,
  )
  cross = scheduler.take_rows(cross, waiting, taken, axes, module.rules)
  empty = (taken >= 0) & ~jnp.any(cross.segments != 0, axis=1)
  state = dataclasses.replace(state, done=state.done | empty)
  return dataclasses.replace(loop_state, state=state), cross


@functools.partial(jax.jit, static_argnames="rules")
def replicate(tree: Any, rules: sharding.Rules | None) -> Any:
  """All of it on every device, so that each process can read it."""
  return jax.tree.map(
    lambda leaf: sharding.constrain(leaf, (None,) * leaf.ndim, rules), tree
  )


@functools.partial(jax.jit, static_argnames="module")
def result(
  module: FlaxEncoderDecoderModule,
  search: SearchContext,
  loop_state: loop.LoopState,
) -> Generated:
  """The texts that were found so far, best first."""
  state, returned = loop_state.state, search.options.num_returned
  if isinstance(state, sampling.Samples):
    tokens, lengths = state.texts.tokens, state.lengths
    scores, parents = sampling.final_scores(state, search), None
  else:
    found = state.finished
    if isinstance(state, diverse_beam.Groups):
      found = diverse_beam.best(state, returned)
    tokens, lengths = found.tokens, found.lengths
    scores, parents = found.scores, found.parents

  def rows(array: Array | None) -> Any:
    if array is None:
      return None
    array = array[:, :returned].reshape(-1, *array.shape[2:])
    axes = ("batch", *(None,) * (array.ndim - 1))
    return sharding.constrain(array, axes, module.rules)

  def without_padding(array: Array | None) -> Any:
    vocabulary = slice(module.config.decoder_vocab_rows)
    return None if array is None else array[..., vocabulary]

  return Generated(
    tokens=rows(tokens),
    lengths=rows(lengths),
    steps=jnp.max(state.texts.length) - search.prompt,
    scores=rows(scores),
    parents=rows(parents),
    step_scores=without_padding(loop_state.scores),
    step_logits=without_padding(loop_state.logits),
  )
