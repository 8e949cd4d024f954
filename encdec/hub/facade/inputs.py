"""Checks a call's inputs, and fills in Hugging Face's defaults.

PyTorch's rules: attention masks default to ones; positions count from 0, or
over the ids that are not padding (RoBERTa); labels are shifted right and
their -100 become padding.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from encdec import explicit_axes
from encdec.config import StackConfig
from encdec.hub.facade.numpy_or_jax import AnyArray, array_module
from encdec.masks import shift_right, token_positions
from encdec.special_tokens import SpecialTokens

IGNORED_LABEL = -100


@struct.dataclass
class SideInputs:
  """One side's inputs, as the module names them.

  `query_segments` are ones: padding attends to the tokens, as in PyTorch.
  """

  tokens: Int[AnyArray, "B T"] | None
  segments: Int[AnyArray, "B T"]
  positions: Int[AnyArray, "B T"]
  query_segments: Int[AnyArray, "B T"]
  types: Int[AnyArray, "B T"] | None = None
  embeds: Float[Array, "B T E"] | None = None
  dense: Bool[AnyArray, "B #H T S"] | None = None


def side_inputs(
  config: StackConfig,
  ids: Any,
  mask: Any,
  position_ids: Any,
  *,
  types: Any = None,
  embeds: Any = None,
  ids_name: str,
) -> SideInputs:
  """One side's inputs, from a caller's arguments.

  Args:
    mask: `[B, T]`, or for one mask a query `[B, T, T]` or `[B, H, T, T]`;
      nonzero where a token may be attended to.
    position_ids: as PyTorch counts them, see `first_position`.
    ids_name: for messages.

  Raises:
    ValueError: shapes that do not fit, ids outside the vocabulary, a row that
      is longer than the position table.
  """
  if (ids is None) == (embeds is None):
    raise ValueError(
      f"pass either {ids_name} or its embeddings, not both and not none"
    )
  if ids is not None:
    ids = as_ids(ids, ids_name, config.vocab_size)
    shape = ids.shape
  else:
    embeds = jnp.asarray(embeds)
    explicit_axes.check({f"the embeddings in place of {ids_name}": embeds})
    if embeds.ndim != 3 or embeds.shape[2] != config.embedding_width:
      raise ValueError(
        f"the embeddings in place of {ids_name} have shape "
        f"{list(embeds.shape)}; they must be "
        f"[batch, length, {config.embedding_width}]"
      )
    shape = embeds.shape[:2]
  if types is not None and not config.type_vocab_size:
    raise ValueError(f"{config.name} has no token types; leave them out")
  if types is not None:
    types = as_ids(types, f"token types of {ids_name}", config.type_vocab_size)
    check_shape(types, shape, f"token types of {ids_name}")
  segments, dense = as_mask(mask, shape, ids_name)
  if position_ids is not None:
    positions = as_ids(
      position_ids,
      f"position ids of {ids_name}",
      config.max_positions + first_position(config),
    )
    if positions.shape[0] == 1:
      positions = array_module(positions).broadcast_to(
        positions, (shape[0], positions.shape[1])
      )
    check_shape(positions, shape, f"position ids of {ids_name}")
    positions = positions - first_position(config)
  else:
    check_length(config, shape[1], ids_name)
    positions = default_positions(config, ids, shape)
  return SideInputs(
    tokens=ids,
    segments=segments,
    positions=positions,
    query_segments=np.ones(shape, np.int32),
    types=types,
    embeds=embeds,
    dense=dense,
  )


def first_position(config: StackConfig) -> int:
  """The position id that Hugging Face gives to a row's first token.

  RoBERTa's ids are rows of its table; where a module adds the offset itself,
  as BART's does, they count from 0.
  """
  return config.position_offset if config.positions_from_ids else 0


def check_shape(array: AnyArray, shape: tuple[int, ...], name: str) -> None:
  if array.shape != shape:
    raise ValueError(
      f"{name} have shape {list(array.shape)}; it must be {list(shape)}"
    )


def as_ids(ids: Any, name: str, limit: int) -> Int[AnyArray, "B T"]:
  """Ids as int32; values are checked unless they are traced."""
  explicit_axes.check({name: ids})
  if not isinstance(ids, Tracer):
    held = np.asarray(ids)
    if held.ndim != 2 or held.dtype.kind not in "iu":
      raise ValueError(
        f"{name} must be whole numbers of shape [batch, length], not "
        f"{held.dtype} {list(held.shape)}"
      )
    if held.size and not 0 <= held.min() <= held.max() < limit:
      raise ValueError(
        f"{name} holds ids from {held.min()} to {held.max()}; the table has "
        f"{limit} rows: use the tokenizer that belongs to this side"
      )
  return array_module(ids).asarray(ids, np.int32)


def as_mask(
  mask: Any, shape: tuple[int, ...], name: str
) -> tuple[Int[AnyArray, "B T"], Bool[AnyArray, "B #H T T"] | None]:
  """Segments, and a dense mask where there is one for each query."""
  if mask is None:
    return np.ones(shape, np.int32), None
  explicit_axes.check({f"the attention mask of {name}": mask})
  mask = array_module(mask).asarray(mask)
  batch, length = shape
  if mask.shape == (batch, length):
    return mask.astype(bool).astype(np.int32), None
  if mask.ndim == 3:
    mask = mask[:, None]
  square = (length, length)
  if mask.ndim != 4 or mask.shape[0] != batch or mask.shape[2:] != square:
    raise ValueError(
      f"the attention mask of {name} has shape {list(mask.shape)}; it must be "
      f"[{batch}, {length}], or [{batch}, heads or 1, {length}, {length}]"
    )
  if jnp.issubdtype(mask.dtype, jnp.floating):
    raise ValueError(
      f"the attention mask of {name} is {mask.dtype}; a mask for each query "
      "is boolean or whole numbers, nonzero where attention is allowed"
    )
  return np.ones(shape, np.int32), mask.astype(bool)


def cache_mask(mask: Any, batch: int, slots: int) -> Bool[Array, "B T"]:
  """Which slots of a cache may be attended to; those after the mask may."""
  mask = jnp.asarray(mask)
  explicit_axes.check({"decoder_attention_mask": mask})
  if mask.ndim != 2 or mask.shape[0] != batch or mask.shape[1] > slots:
    raise ValueError(
      f"decoder_attention_mask has shape {list(mask.shape)}; with a cache it "
      f"is [{batch}, at most {slots}], counted from the cache's first token"
    )
  more = slots - mask.shape[1]
  return jnp.pad(mask.astype(bool), ((0, 0), (0, more)), constant_values=True)


def check_length(config: StackConfig, length: int, name: str) -> None:
  if length > config.max_positions:
    raise ValueError(
      f"{name} is {length} tokens long; the {config.role}'s position table "
      f"ends at {config.max_positions}: truncate it"
    )


def default_positions(
  config: StackConfig,
  ids: Int[AnyArray, "B T"] | None,
  shape: tuple[int, ...],
  past: Any = 0,
) -> Int[AnyArray, "B T"]:
  """Positions by the architecture's rule, after `past` earlier ones.

  Of embeddings each takes one: no id says that it does not.
  """
  unplaced = config.unplaced_token
  if ids is None:
    ids, unplaced = np.zeros(shape, np.int32), None
  return token_positions(ids, unplaced, past=past)


def from_labels(
  labels: Any, mask: Any, tokens: SpecialTokens
) -> tuple[Int[Array, "B T"], Any]:
  """Decoder inputs from labels, and their mask; by default padding is masked.

  The start token is seen, also where padding has the same id: PyTorch masks it
  there, and its first loss sees the labels that follow.
  """
  explicit_axes.check({"labels": labels})
  labels = jnp.asarray(labels, jnp.int32)
  assert tokens.start is not None and tokens.pad is not None
  ids = shift_tokens_right(labels, tokens.pad, tokens.start)
  if mask is None:
    first = jnp.arange(ids.shape[1], dtype=jnp.int32)[None] == 0
    mask = ((ids != tokens.pad) | first).astype(jnp.int32)
  return ids, mask


def shift_tokens_right(
  input_ids: Any, pad_token_id: int, decoder_start_token_id: int
) -> Int[Array, "B T"]:
  """Decoder inputs of labels: the start token first, -100 as padding."""
  ids = shift_right(jnp.asarray(input_ids, jnp.int32), decoder_start_token_id)
  return jnp.where(ids == IGNORED_LABEL, jnp.int32(pad_token_id), ids)


def check_labels(labels: Any, shape: tuple[int, ...], vocab_size: int) -> Array:
  """Labels as a device array; values are checked unless they are traced."""
  explicit_axes.check({"labels": labels})
  if not isinstance(labels, Tracer):
    held = np.asarray(labels)
    real = held[held != IGNORED_LABEL]
    if real.size and not 0 <= real.min() <= real.max() < vocab_size:
      raise ValueError(
        f"labels hold ids from {real.min()} to {real.max()}; the decoder has "
        f"{vocab_size}, and -100 is left out"
      )
  labels = jnp.asarray(labels, jnp.int32)
  if labels.shape != shape:
    raise ValueError(
      f"labels have shape {list(labels.shape)}, the decoder's inputs "
      f"{list(shape)}; they must agree"
    )
  return labels


def check_states(states: Any, width: int, target: Any) -> None:
  """Raises ValueError unless encoder states go with a target's rows."""
  explicit_axes.check({"encoder_outputs": states})
  if states.ndim != 3 or states.shape[2] != width:
    raise ValueError(
      f"encoder_outputs hold states of shape {list(states.shape)}; they must "
      f"be [batch, length, {width}]"
    )
  if target is not None and len(target) != len(states):
    raise ValueError(
      f"the source has {len(states)} rows and the target {len(target)}; pair "
      "them"
    )


def mean_loss(
  logits: Float[Array, "B T V"], labels: Int[Array, "B T"]
) -> Float[Array, ""]:
  """Mean cross-entropy of the labels that are not -100; NaN without any."""
  real = labels != IGNORED_LABEL
  log_probabilities = jax.nn.log_softmax(logits, axis=-1)
  picked = jnp.take_along_axis(
    log_probabilities, jnp.where(real, labels, 0)[..., None], axis=-1
  )[..., 0]
  count = jnp.sum(real, dtype=logits.dtype)
  return -jnp.sum(jnp.where(real, picked, 0.0)) / count
