"""Generation with a model: prepares caches and runs a search over its steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

from encdec.generation import programs
from encdec.generation.programs import Generated, Prompt
from encdec.generation.search import options
from encdec.generation.search.context import SearchContext
from encdec.generation.search.options import SearchOptions
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import Params

__all__ = ["Generated", "Prompt", "generate", "row_keys", "start_prompt"]


def start_prompt(batch: int, start_token: int) -> Prompt:
  """The prompt of one start token."""
  # The host's: making them on a device would compile for each batch.
  ones: Any = np.ones((batch, 1), np.int32)
  return Prompt(ones * np.int32(start_token), ones)


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
  check(module, options, prompt, cache_length)
  keys = None
  if options.sample:
    if key is None:
      raise ValueError("sampling needs a key: pass key=jax.random.key(seed)")
    keys = row_keys(key, encoder_segments.shape[0])
  cross = programs.encode(
    module,
    decoding_params,
    encoder_tokens if encoder_states is None else None,
    encoder_segments,
    encoder_positions,
    encoder_states,
  )
  search = SearchContext(
    options,
    module.platform,
    source=encoder_tokens,
    source_real=encoder_segments != 0,
    prompt=prompt.tokens.shape[1],
    vocab_size=module.config.decoder.vocab_size,
    unplaced=module.config.decoder.unplaced_token,
    rules=module.rules,
  )
  loop_state = programs.start(
    module, cache_length, decoding_params, cross, prompt, search, keys
  )
  batch = jnp.asarray(encoder_segments.shape[0], jnp.int32)
  loop_state = programs.run(
    module, decoding_params, cross, prompt, search, loop_state, enough=batch
  )
  return programs.result(module, search, loop_state)


def check(
  module: FlaxEncoderDecoderModule,
  asked: SearchOptions,
  prompt: Prompt,
  cache_length: int,
) -> None:
  """Raises ValueError for what `generate` cannot do; its docstring says it."""
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
