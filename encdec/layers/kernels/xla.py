"""Attention by plain matrix products and a softmax, which XLA compiles."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from encdec import sharding
from encdec.layers import dropout as dropout_lib
from encdec.layers.kernels.facts import (
  AttentionDropout,
  AttentionFacts,
  key_shape,
)
from encdec.layers.matmul import skinny_matmul
from encdec.masks import dense_mask
from encdec.types import AttentionMask, KeyBlocks


class XlaAttention:
  """Plain products and a float32 softmax: serves every call."""

  def refuses(self, facts: AttentionFacts) -> str | None:
    del facts
    return None

  def auto_skips(self, facts: AttentionFacts) -> str | None:
    del facts
    return None

  def __call__(
    self,
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S G K"] | KeyBlocks,
    v: Float[Array, "B S G K"],
    mask: AttentionMask,
    *,
    scale: float,
    platform: str,
    rules: sharding.Rules | None,
    bias: Float[Array, "#B #H T S"] | None,
    softcap: float | None,
    sinks: Float[Array, "H"] | None,
    dropout: AttentionDropout | None,
    return_weights: bool,
  ) -> tuple[Float[Array, "B T H K"], Float[Array, "B H T S"] | None]:
    del rules  # The compiler splits its products as q, k and v lie.
    batch, queries, heads, width = q.shape
    _, keys, groups, _ = key_shape(k)
    if dropout is not None and dropout.mode == "values":
      v = drop_values(v, dropout)
    q = q.reshape(batch, queries, groups, heads // groups, width)
    q = q.transpose(0, 2, 3, 1, 4).reshape(batch, groups, -1, width)
    logits = _products(q, k, platform).reshape(batch, heads, queries, keys)
    logits = logits * scale
    if softcap is not None:
      logits = softcap * jnp.tanh(logits / softcap)
    if bias is not None:
      logits = logits + bias.astype(jnp.float32)
    allowed = dense_mask(mask, queries, keys)
    if allowed is not None:
      # The lowest finite number: a row that sees no key attends evenly.
      lowest = jnp.finfo(jnp.float32).min
      logits = jnp.where(allowed, logits, lowest)
    weights = _softmax(logits, sinks)
    returned = weights if return_weights else None
    if dropout is not None and dropout.mode == "weights":
      weights = _drop_weights(weights, dropout)
    weights = weights.astype(v.dtype).reshape(
      batch, groups, heads // groups, queries, keys
    )
    # In the order in which products come out: another one transposes v.
    out = jnp.einsum("BGRTS,BSGK->BGRTK", weights, v)
    out = out.reshape(batch, heads, queries, width).swapaxes(1, 2)
    return checkpoint_name(out, "ctx"), returned


def _products(
  q: Float[Array, "B G Q K"],
  k: Float[Array, "B S G K"] | KeyBlocks,
  platform: str,
) -> Float[Array, "B G Q S"]:
  if not isinstance(k, KeyBlocks):
    # Not einsum, which puts k first: keys would not come out last, and what
    # follows goes along them.
    axes = (((3,), (3,)), ((0, 1), (0, 2)))
    return skinny_matmul(q, k, axes, jnp.float32, platform)
  batch, groups, queries, width = q.shape
  blocks = k.blocks.shape[2:-2]
  q = jnp.expand_dims(q, tuple(range(2, 2 + len(blocks))))
  q = jnp.broadcast_to(q, (batch, groups, *blocks, queries, width))
  of_both = tuple(range(2 + len(blocks)))
  products = jax.lax.dot_general(
    q,
    k.blocks,
    (((q.ndim - 1,), (q.ndim - 2,)), (of_both, of_both)),
    preferred_element_type=jnp.float32,
  )
  products = jnp.moveaxis(products, -2, 2).reshape(batch, groups, queries, -1)
  return products[..., : k.count]


def _softmax(
  logits: Float[Array, "B H T S"], sinks: Float[Array, "H"] | None
) -> Float[Array, "B H T S"]:
  """Softmax over keys; a sink is one more logit a head, with no value."""
  if sinks is None:
    return jax.nn.softmax(logits, axis=-1)
  sink = jnp.broadcast_to(
    sinks.astype(jnp.float32)[None, :, None, None], (*logits.shape[:3], 1)
  )
  joined = jnp.concatenate([logits, sink], axis=-1)
  return jax.nn.softmax(joined, axis=-1)[..., :-1]


def _drop_weights(
  weights: Float[Array, "B H T S"], dropout: AttentionDropout
) -> Float[Array, "B H T S"]:
  axes = ("batch", "heads", None, None)
  mask = dropout_lib.keep_mask(
    dropout.key, weights.shape, dropout.rate, axes, dropout.rules
  )
  return dropout_lib.keep(weights, mask, dropout.rate)


def drop_values(
  v: Float[Array, "B S G K"], dropout: AttentionDropout
) -> Float[Array, "B S G K"]:
  """Values with a draw a key and head, which is alike for all queries."""
  mask = _value_mask(v, dropout).transpose(0, 2, 1)[..., None]
  return dropout_lib.keep(v, mask, dropout.rate)


def value_scales(
  v: Float[Array, "B S G K"], dropout: AttentionDropout
) -> Float[Array, "B G S"]:
  """What `drop_values` multiplies values with, in float32."""
  mask = _value_mask(v, dropout)
  return dropout_lib.keep(jnp.ones(mask.shape, jnp.float32), mask, dropout.rate)


def _value_mask(
  v: Float[Array, "B S G K"], dropout: AttentionDropout
) -> Bool[Array, "B G S"]:
  batch, keys, groups, _ = v.shape
  # Keys last: the draws are paired along an axis that is never sharded.
  shape, axes = (batch, groups, keys), ("batch", "kv_heads", None)
  return dropout_lib.keep_mask(
    dropout.key, shape, dropout.rate, axes, dropout.rules
  )
