"""Texts that grow side by side, and where the cache holds their keys."""

import dataclasses

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

from encdec.masks import last_positions
from encdec.types import DecodeView


@struct.dataclass
class Hypotheses:
  """N texts for each of B sources; those of one source are of one length.

  Every text writes its keys and values at the same slot of the cache, and no
  cache moves when texts are reordered: `ancestors` says which of the N wrote
  a slot of a text's history. Slots form a ring, so that a row may start
  afresh at any of them.

  Attributes:
    tokens: the first `length` are written.
    origin: the slot of a row's first token.
    readable: False at slots of the prompt's padding.
    ancestors: None where each text only ever continues itself.
  """

  tokens: Int[Array, "B N C"]
  length: Int[Array, "B"]
  origin: Int[Array, "B"]
  readable: Bool[Array, "B T"]
  ancestors: Int[Array, "B N T"] | None

  @property
  def separate_beams(self) -> bool:
    """Whether each text reads its own keys alone; see `DecodeView`."""
    return self.ancestors is None and self.tokens.shape[1] > 1


def start(
  prompt: Int[Array, "B P"],
  visible: Bool[Array, "B P"],
  *,
  width: int,
  slots: int,
  pad_token: Int[Array, ""],
  reorder: bool,
  origin: Int[Array, ""] | None = None,
) -> Hypotheses:
  """N copies of the prompt, whose last token is not in the cache yet.

  The others are in the slots of the first text. A text has room for a token
  more than there are slots: the last one is never read.

  Args:
    origin: the slot of a prompt of one token; 0 by default.
  """
  batch, length = prompt.shape
  own = jnp.arange(width, dtype=jnp.int32)[None, :, None]
  index = jnp.arange(slots, dtype=jnp.int32)[None]
  blank = jnp.broadcast_to(
    pad_token.astype(jnp.int32), (batch, width, slots + 1 - length)
  )
  copies = jnp.broadcast_to(prompt[:, None], (batch, width, length))
  read = index[:, None] < length - 1
  return Hypotheses(
    tokens=jnp.concatenate([copies.astype(jnp.int32), blank], axis=-1),
    length=jnp.full((batch,), length, jnp.int32),
    origin=jnp.broadcast_to(
      jnp.zeros((), jnp.int32) if origin is None else origin, (batch,)
    ),
    readable=jnp.pad(
      visible, ((0, 0), (0, slots - length)), constant_values=True
    ),
    ancestors=jnp.broadcast_to(jnp.where(read, 0, own), (batch, width, slots))
    if reorder
    else None,
  )


def last_tokens(texts: Hypotheses) -> Int[Array, "B N"]:
  """The token that a step reads."""
  at = jnp.broadcast_to(
    texts.length[:, None, None] - 1, (*texts.tokens.shape[:2], 1)
  )
  return jnp.take_along_axis(texts.tokens, at, axis=-1)[..., 0]


def view(
  texts: Hypotheses, slot: Int[Array, ""], unplaced: int | None = None
) -> DecodeView:
  """The view of a step that writes the texts' last tokens at `slot`.

  `unplaced` is the id that takes no position, if there is one.
  """
  batch, width, _ = texts.tokens.shape
  slots = texts.readable.shape[1]
  index = jnp.arange(slots, dtype=jnp.int32)[None]
  position = (index - texts.origin[:, None]) % slots
  written = (position < texts.length[:, None]) & texts.readable
  if texts.ancestors is None:
    visible = jnp.broadcast_to(written[:, None], (batch, width, slots))
  else:
    owner = jnp.arange(width, dtype=jnp.int32)[None, None, None]
    visible = texts.ancestors[..., None] == owner
    visible = visible & written[:, None, :, None]
    visible = visible.reshape(batch, width, slots * width)
  return DecodeView(
    slot=slot,
    query_positions=last_positions(texts.tokens, texts.length, unplaced),
    key_positions=position,
    visible=visible,
    separate_beams=texts.separate_beams,
  )


def append(
  texts: Hypotheses,
  parents: Int[Array, "B N"] | None,
  tokens: Int[Array, "B N"],
  next_slot: Int[Array, ""],
) -> Hypotheses:
  """Continues text `parents[b, n]` as text n, by one token.

  Args:
    next_slot: where the step that reads `tokens` will write.
  """
  ancestors = texts.ancestors
  if ancestors is not None and parents is not None:
    ancestors = take(ancestors, parents)
  if ancestors is not None:
    own = jnp.arange(ancestors.shape[1], dtype=jnp.int32)[None, :, None]
    index = jnp.arange(ancestors.shape[2], dtype=jnp.int32)[None, None]
    ancestors = jnp.where(index == next_slot, own, ancestors)
  return dataclasses.replace(
    texts,
    tokens=extend(texts, parents, tokens),
    length=texts.length + 1,
    ancestors=ancestors,
  )


def extend(
  texts: Hypotheses,
  parents: Int[Array, "B M"] | None,
  tokens: Int[Array, "B M"],
) -> Int[Array, "B M C"]:
  """The tokens of continued texts."""
  before = texts.tokens if parents is None else take(texts.tokens, parents)
  return write(before, tokens, texts.length)


def write(
  before: Int[Array, "B M C"],
  values: Int[Array, "B M"],
  length: Int[Array, "B"],
) -> Int[Array, "B M C"]:
  """Puts a value where each text ends so far."""
  index = jnp.arange(before.shape[-1], dtype=jnp.int32)[None, None]
  here = index == length[:, None, None]
  return jnp.where(here, values[..., None], before)


def take(array: Array, parents: Int[Array, "B M"]) -> Array:
  """`array[b, parents[b, m]]`, for an array of two axes or more."""
  at = parents.reshape(*parents.shape, *(1,) * (array.ndim - 2))
  return jnp.take_along_axis(array, at, axis=1)


def select_rows(choose: Bool[Array, "B"], new, old):
  """`new` where `choose`, row by row; works on arrays with a leading batch."""
  at = choose.reshape(-1, *(1,) * (new.ndim - 1))
  return jnp.where(at, new, old)
