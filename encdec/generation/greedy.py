"""Greedy search: the likeliest token at every step, in one device loop."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from encdec.generation.processors import ban_end_before
from encdec.types import DecodeView, SelfCache

Step = Callable[
  [Int[Array, "B 1"], DecodeView, SelfCache],
  tuple[Float[Array, "B 1 V"], SelfCache],
]


@struct.dataclass
class _Loop:
  length: Int[Array, ""]
  tokens: Int[Array, "B C"]
  last: Int[Array, "B 1"]
  finished: Bool[Array, "B"]
  cache: SelfCache


def greedy(
  decode_step: Step,
  prompt: Int[Array, "B P"],
  prompt_visible: Bool[Array, "B P"],
  logits: Float[Array, "B V"],
  cache: SelfCache,
  *,
  end_tokens: tuple[int, ...],
  pad_token: int,
  min_length: Int[Array, ""],
  max_length: Int[Array, ""],
) -> Int[Array, "B C"]:
  """Tokens with the prompt in front and `pad_token` after an end token.

  The loop ends when every row has, or at `max_length`. Lengths count the
  prompt.

  Args:
    decode_step: logits and cache after one more token a row.
    prompt: what `cache` holds already.
    prompt_visible: False at the prompt's padding.
    logits: of the prompt's last token.
    cache: C slots, of which the first P are written.
    end_tokens: any of them ends a row.
    pad_token: fills a row after its end.
    min_length: no end token before this length.
    max_length: at most C.
  """
  batch, start = prompt.shape
  slots = cache.layers[0][0].shape[2]
  visible = jnp.pad(
    prompt_visible, ((0, 0), (0, slots - start)), constant_values=True
  )
  index = jnp.arange(slots, dtype=jnp.int32)[None]

  def choose(loop: _Loop, logits: Float[Array, "B V"]) -> _Loop:
    scores = ban_end_before(logits, loop.length, min_length, end_tokens)
    token = jnp.argmax(scores, axis=-1).astype(jnp.int32)
    token = jnp.where(loop.finished, jnp.int32(pad_token), token)
    finished = loop.finished
    for end in end_tokens:
      finished = finished | (token == end)
    zero = jnp.zeros_like(loop.length)
    return dataclasses.replace(
      loop,
      length=loop.length + 1,
      tokens=jax.lax.dynamic_update_slice(
        loop.tokens, token[:, None], (zero, loop.length)
      ),
      last=token[:, None],
      finished=finished,
    )

  def unfinished(loop: _Loop) -> Bool[Array, ""]:
    return (loop.length < max_length) & ~jnp.all(loop.finished)

  def body(loop: _Loop) -> _Loop:
    slot = loop.length - 1
    view = DecodeView(
      slot=slot,
      query_positions=jnp.broadcast_to(slot, (batch, 1)),
      key_positions=jnp.broadcast_to(index, (batch, slots)),
      visible=(visible & (index <= slot))[:, None],
    )
    logits, cache = decode_step(loop.last, view, loop.cache)
    return choose(dataclasses.replace(loop, cache=cache), logits[:, 0])

  blank = jnp.full((batch, slots), pad_token, jnp.int32)
  loop = _Loop(
    length=jnp.asarray(start, jnp.int32),
    tokens=jax.lax.dynamic_update_slice(blank, prompt, (0, 0)),
    last=prompt[:, -1:],
    finished=jnp.zeros((batch,), bool),
    cache=cache,
  )
  return jax.lax.while_loop(unfinished, body, choose(loop, logits)).tokens
