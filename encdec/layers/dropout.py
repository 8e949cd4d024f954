"""Dropout whose bits do not depend on the mesh.

Bits come from typed threefry keys, two 16-bit draws out of every 32, which lie
along the last axis, and that is never sharded: each device generates its own
part alone, and all meshes see the same values.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from encdec import sharding

# Where a draw is used within a layer; the last number folded into its key.
EMBEDDING, SELF_ATTENTION, SELF_OUTPUT = 0, 1, 2
CROSS_ATTENTION, CROSS_OUTPUT, MLP_OUTPUT, MLP_HIDDEN = 3, 4, 5, 6
SITES = 7

_LEVELS = 1 << 16


def side_key(key: Key[Array, ""] | None, side: int) -> Key[Array, ""] | None:
  """The key of a side: 0 is the encoder, 1 the decoder."""
  return None if key is None else jax.random.fold_in(key, side)


def stack_keys(
  key: Key[Array, ""] | None, num_layers: int
) -> Key[Array, "rows sites"] | None:
  """Keys of every layer and site: row 0 is the embeddings', l + 1 layer l's.

  They are made together, outside the scan: each hash of its own is a loop
  that takes long to compile. None, which switches dropout off, stays None.
  """
  if key is None:
    return None
  fold_in = jax.vmap(jax.random.fold_in, (None, 0))
  rows = fold_in(key, jnp.arange(num_layers + 1, dtype=jnp.uint32))
  sites = jnp.arange(SITES, dtype=jnp.uint32)
  return jax.vmap(fold_in, (0, None))(rows, sites)


def keep_mask(
  key: Key[Array, ""],
  shape: tuple[int, ...],
  rate: float,
  axes: tuple[str | None, ...],
  rules: sharding.Rules | None,
) -> Bool[Array, "..."]:
  """True with probability `keep_probability(rate)`; `axes` are the mask's."""
  pairs = -(-shape[-1] // 2)
  words = jax.random.bits(key, (*shape[:-1], pairs), jnp.uint32)
  words = sharding.constrain(words, axes, rules)
  level = jnp.uint32(round(keep_probability(rate) * _LEVELS))
  halves = ((words & (_LEVELS - 1)) < level, (words >> 16) < level)
  # Side by side, not interleaved: on a TPU that would write the draws out.
  return jnp.concatenate(halves, axis=-1)[..., : shape[-1]]


def keep_probability(rate: float) -> float:
  """The probability that an entry stays, rounded to what 16 bits express."""
  levels = min(max(round((1.0 - rate) * _LEVELS), 1), _LEVELS - 1)
  return levels / _LEVELS


def dropout(
  states: Float[Array, "B T D"],
  key: Key[Array, ""] | None,
  rate: float,
  rules: sharding.Rules | None,
  axes: sharding.Axes = ("batch", None, None),
) -> Float[Array, "B T D"]:
  """Zeroes entries with probability `rate` and scales up the others.

  Args:
    axes: logical axes of the states.
  """
  if key is None or rate == 0.0:
    return states
  mask = keep_mask(key, states.shape, rate, axes, rules)
  return keep(states, mask, rate)


def keep(
  values: Float[Array, "..."], mask: Bool[Array, "..."], rate: float
) -> Float[Array, "..."]:
  """Zeroes what is not in the mask and scales up the others."""
  scaled = values * jnp.asarray(1.0 / keep_probability(rate), values.dtype)
  return jnp.where(mask, scaled, jnp.zeros((), values.dtype))
