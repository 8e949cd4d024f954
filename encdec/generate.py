"""Generation with a model: prepares caches and runs a search over its steps."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from encdec import sharding
from encdec.generation.greedy import greedy
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import Params


@dataclasses.dataclass(frozen=True)
class SearchTokens:
  """The target's special ids: a start, any number of ends, a padding."""

  start: int
  end: tuple[int, ...]
  pad: int


@struct.dataclass
class Generated:
  """Tokens, the start token included and padding after the end token.

  `lengths` count up to and with the end token, or to the maximum length.
  """

  tokens: Int[Array, "B C"]
  lengths: Int[Array, "B"]


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


def generate(
  module: FlaxEncoderDecoderModule,
  decoding_params: Params,
  encoder_tokens: Int[Array, "B S"] | None,
  encoder_segments: Int[Array, "B S"],
  encoder_positions: Int[Array, "B S"] | None,
  *,
  tokens: SearchTokens,
  cache_length: int,
  max_length: int | Int[Array, ""],
  min_length: int | Int[Array, ""] = 0,
  prompt: Prompt | None = None,
  encoder_states: Float[Array, "B S W"] | None = None,
) -> Generated:
  """Greedy continuations of the prompt, one a source.

  Compiles once for each module, shape, `tokens` and `cache_length`; lengths
  may change freely below it. May be called under jit.

  Args:
    decoding_params: `unstack(expand(stored, config), module.dtype)`, made
      once for each version of the weights.
    encoder_segments: 0 at padding, to which no token attends.
    cache_length: slots of the cache, C.
    max_length: in tokens, the prompt included; at most `cache_length`.
    min_length: no end token before it; counted alike.
    prompt: the start token by default.
    encoder_states: in place of tokens, as `encode` gave them.

  Raises:
    ValueError: lengths that exceed the cache or the position table, or a
      special id outside the vocabulary.
  """
  config = module.config.decoder
  if cache_length > config.max_positions:
    raise ValueError(
      f"a generated length of {cache_length} exceeds the decoder's position "
      f"table ({config.max_positions}); lower max_length"
    )
  _check_ids(tokens, config.vocab_size)
  if prompt is None:
    prompt = start_prompt(encoder_segments.shape[0], tokens.start)
  prompt_length = prompt.tokens.shape[1]
  if not isinstance(max_length, jax.Array) and not (
    prompt_length < max_length <= cache_length
  ):
    raise ValueError(
      f"max_length={max_length} must exceed the prompt ({prompt_length} "
      f"tokens) and fit the cache ({cache_length})"
    )
  return _generate(
    module,
    tokens,
    cache_length,
    decoding_params,
    encoder_tokens,
    encoder_segments,
    encoder_positions,
    encoder_states,
    prompt,
    jnp.asarray(max_length, jnp.int32),
    jnp.asarray(min_length, jnp.int32),
  )


def _check_ids(tokens: SearchTokens, vocab_size: int) -> None:
  for name, ids in (
    ("start", (tokens.start,)),
    ("end", tokens.end),
    ("pad", (tokens.pad,)),
  ):
    for token in ids:
      if not 0 <= token < vocab_size:
        raise ValueError(
          f"{name} token {token} is outside the decoder's vocabulary of "
          f"{vocab_size}; set another {name} token"
        )


@functools.partial(
  jax.jit, static_argnames=("module", "tokens", "cache_length")
)
def _generate(
  module: FlaxEncoderDecoderModule,
  tokens: SearchTokens,
  cache_length: int,
  params: Params,
  encoder_tokens: Any,
  encoder_segments: Any,
  encoder_positions: Any,
  encoder_states: Any,
  prompt: Prompt,
  max_length: Int[Array, ""],
  min_length: Int[Array, ""],
) -> Generated:
  apply: Any = functools.partial(module.apply, {"params": params})
  if encoder_states is None:
    encoder_states = apply(
      tokens=encoder_tokens,
      segments=encoder_segments,
      positions=encoder_positions,
      method="encode",
    ).states
  cross = apply(encoder_states, encoder_segments, method="cross_cache")
  logits, cache = apply(
    tokens=prompt.tokens,
    segments=prompt.segments,
    positions=prompt.positions,
    cross=cross,
    cache_length=cache_length,
    method="prefill",
  )

  def decode_step(last, view, cache):
    return apply(
      tokens=last, view=view, cache=cache, cross=cross, method="decode_step"
    )

  result = greedy(
    decode_step,
    prompt.tokens,
    prompt.segments != 0,
    logits[:, -1],
    cache,
    end_tokens=tokens.end,
    pad_token=tokens.pad,
    min_length=min_length,
    max_length=max_length,
  )
  result = sharding.constrain(result, ("batch", None), module.rules)
  start = prompt.tokens.shape[1]
  return Generated(result, _lengths(result, start, tokens.end, max_length))


def _lengths(
  tokens: Int[Array, "B C"],
  start: int,
  end_tokens: tuple[int, ...],
  max_length: Int[Array, ""],
) -> Int[Array, "B"]:
  """The length of each row, its end token included."""
  ends = jnp.zeros(tokens.shape, bool)
  for end in end_tokens:
    ends = ends | (tokens == end)
  index = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
  # An end token inside the prompt ends nothing.
  ends = ends & (index >= start)
  first = jnp.argmax(ends, axis=1).astype(jnp.int32)
  return jnp.where(jnp.any(ends, axis=1), first + 1, max_length)
