"""The module's methods compiled with jit, as the facade calls them."""

import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

from encdec.generation.decode_params import unstack
from encdec.hub.facade.inputs import SideInputs, default_positions
from encdec.hub.facade.outputs import DecoderCache
from encdec.layers import kv_cache as cache_lib
from encdec.model import FlaxEncoderDecoderModule
from encdec.sharing import expand
from encdec.types import (
  CrossCache,
  DecodeView,
  KeyValue,
  Params,
  SelfCache,
  StackOutput,
)

_FLAGS = ("module", "attentions", "hidden_states")


@functools.partial(jax.jit, static_argnames="module")
def decoding_form(module: FlaxEncoderDecoderModule, params: Params) -> Params:
  """The parameters as decoding needs them: unstacked, in the module's dtype."""
  return unstack(expand(params, module.config), module)


@functools.partial(jax.jit, static_argnames=_FLAGS)
def encode(
  module: FlaxEncoderDecoderModule,
  params: Params,
  source: SideInputs,
  dropout_key: Key[Array, ""] | None,
  attentions: bool,
  hidden_states: bool,
) -> StackOutput:
  """Encoder states."""
  output = module.apply(
    {"params": expand(params, module.config)},
    **vars(source),
    dropout_key=dropout_key,
    output_attentions=attentions,
    output_hidden_states=hidden_states,
    method="encode",
  )
  return cast(StackOutput, output)


@functools.partial(jax.jit, static_argnames=_FLAGS)
def decode(
  module: FlaxEncoderDecoderModule,
  params: Params,
  target: SideInputs,
  encoder_states: Float[Array, "B S W"],
  encoder_segments: Int[Array, "B S"],
  dropout_key: Key[Array, ""] | None,
  attentions: bool,
  hidden_states: bool,
) -> tuple[StackOutput, Float[Array, "B T V"]]:
  """Decoder states and logits."""
  params = expand(params, module.config)
  output = module.apply(
    {"params": params},
    **vars(target),
    encoder_states=encoder_states,
    encoder_segments=encoder_segments,
    dropout_key=dropout_key,
    output_attentions=attentions,
    output_hidden_states=hidden_states,
    method="decode_states",
  )
  output = cast(StackOutput, output)
  logits = module.apply({"params": params}, output.states, method="head")
  return output, cast(Array, logits)


def empty_cache(
  module: FlaxEncoderDecoderModule, batch: int, slots: int, sources: int
) -> DecoderCache:
  """A cache for `slots` tokens that attend to sources of `sources` tokens."""
  config = module.config.decoder

  def zeros(rows: int) -> tuple[KeyValue, ...]:
    shape = (batch, config.num_kv_heads, rows, config.head_width)
    empty = jnp.zeros(shape, module.dtype)
    return (
      cache_lib.as_cache(empty, empty, module.platform),
    ) * config.num_layers

  return DecoderCache(
    decoder=SelfCache(zeros(slots)),
    cross=CrossCache(zeros(sources), jnp.ones((batch, sources), jnp.int32)),
    ready=jnp.zeros((), bool),
    key_mask=jnp.ones((batch, slots), bool),
    length=jnp.zeros((), jnp.int32),
    placed=jnp.zeros((batch,), jnp.int32),
  )


@functools.partial(jax.jit, static_argnames="module")
def decode_cached(
  module: FlaxEncoderDecoderModule,
  decoding_params: Params,
  tokens: Int[Array, "B T"],
  positions: Int[Array, "B T"] | None,
  encoder_states: Float[Array, "B S W"],
  encoder_segments: Int[Array, "B S"],
  cache: DecoderCache,
) -> tuple[Float[Array, "B T V"], DecoderCache]:
  """Logits of tokens that follow those in the cache, and the longer cache."""
  apply: Any = functools.partial(module.apply, {"params": decoding_params})
  batch, count = tokens.shape
  cross = jax.lax.cond(
    cache.ready,
    lambda: CrossCache(cache.cross.layers, encoder_segments),
    lambda: apply(encoder_states, encoder_segments, method="cross_cache"),
  )
  at: Any = positions
  if at is None:
    at = default_positions(
      module.config.decoder, tokens, tokens.shape, cache.placed[:, None]
    )
  unplaced = module.config.decoder.unplaced_token
  taken = jnp.full((batch,), count, jnp.int32)
  if unplaced is not None:
    taken = jnp.sum(tokens != unplaced, axis=1, dtype=jnp.int32)
  slot = jnp.arange(cache.slots, dtype=jnp.int32)
  last = cache.length + jnp.arange(count, dtype=jnp.int32)
  visible = (slot[None] <= last[:, None])[None] & cache.key_mask[:, None]
  logits, decoder = apply(
    tokens=tokens,
    view=DecodeView(
      slot=cache.length,
      query_positions=at,
      key_positions=jnp.broadcast_to(slot[None], (batch, cache.slots)),
      visible=visible,
    ),
    cache=cache.decoder,
    cross=cross,
    method="decode_step",
  )
  return logits, dataclasses.replace(
    cache,
    decoder=decoder,
    cross=cross,
    ready=jnp.ones((), bool),
    length=cache.length + count,
    placed=cache.placed + taken,
  )


def grown(cache: DecoderCache, slots: int) -> DecoderCache:
  """The same cache with room for more tokens."""
  layers = tuple(
    cache_lib.grow_to(held, slots) for held in cache.decoder.layers
  )
  more = ((0, 0), (0, slots - cache.slots))
  key_mask = jnp.pad(cache.key_mask, more, constant_values=True)
  return dataclasses.replace(
    cache, decoder=SelfCache(layers), key_mask=key_mask
  )


def is_traced(*trees: Any) -> bool:
  """Whether any leaf is a tracer: the caller's code runs under jit."""
  return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))
