"""Multi-head attention: one function, and the layer that projects into it."""

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from encdec import sharding
from encdec.config import StackConfig
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.dense import Dense
from encdec.layers.kernels.facts import (
  AttentionDropout,
  AttentionFacts,
  facts_of_mask,
  facts_of_mesh,
  key_shape,
)
from encdec.layers.kernels.select import select
from encdec.types import AttentionMask, KeyBlocks


def attention(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"] | KeyBlocks,
  v: Float[Array, "B S G K"],
  mask: AttentionMask,
  *,
  scale: float,
  platform: str,
  rules: sharding.Rules | None = None,
  bias: Float[Array, "#B #H T S"] | None = None,
  softcap: float | None = None,
  sinks: Float[Array, "H"] | None = None,
  dropout: AttentionDropout | None = None,
  implementation: str = "auto",
  return_weights: bool = False,
) -> tuple[Float[Array, "B T H K"], Float[Array, "B H T S"] | None]:
  """softmax(scale q k^T + bias) v, each key/value head serving H/G heads.

  The softmax is float32 whatever the inputs are. A query that sees no key
  gets a finite output. Weights come back in float32, before dropout, and only
  when asked for.

  Args:
    rules: where q, k and v lie on the mesh, by their batch and their heads.
    implementation: see `encdec.layers.kernels.select`.

  Raises:
    ValueError: the named implementation does not exist or refuses the call.
  """
  facts = AttentionFacts(
    platform=platform,
    query_shape=q.shape,
    key_shape=key_shape(k),
    key_blocks=isinstance(k, KeyBlocks),
    dtype=str(q.dtype),
    bias=bias is not None,
    softcap=softcap is not None,
    sinks=sinks is not None,
    weights_dropout=dropout is not None and dropout.mode == "weights",
    return_weights=return_weights,
    **facts_of_mask(mask),
    **facts_of_mesh(rules),
  )
  return select(implementation, facts)(
    q,
    k,
    v,
    mask,
    scale=scale,
    platform=platform,
    rules=rules,
    bias=bias,
    softcap=softcap,
    sinks=sinks,
    dropout=dropout,
    return_weights=return_weights,
  )


class Attention(nn.Module):
  """Projections around `attention`; a cache may give the keys and values."""

  config: StackConfig
  compute: ComputeConfig

  def setup(self):
    c = self.config
    self.query = self._dense(c.num_heads)
    self.key = self._dense(c.num_kv_heads)
    self.value = self._dense(c.num_kv_heads)
    std = c.init_std * c.residual_init_scale
    self.out = Dense((c.width,), self.compute, std, axes=2)

  def _dense(self, heads: int) -> Dense:
    c = self.config
    return Dense((heads, c.head_width), self.compute, c.init_std)

  def keys_values(
    self, states: Float[Array, "B S D"]
  ) -> tuple[Float[Array, "B S G K"], Float[Array, "B S G K"]]:
    """Keys and values of `states`."""
    axes, rules = ("batch", None, "kv_heads", None), self.compute.rules
    key = sharding.constrain(self.key(states), axes, rules)
    value = sharding.constrain(self.value(states), axes, rules)
    return checkpoint_name(key, "qkv"), checkpoint_name(value, "qkv")

  def attend(
    self,
    states: Float[Array, "B T D"],
    keys_values: tuple[
      Float[Array, "B S G K"] | KeyBlocks, Float[Array, "B S G K"]
    ],
    mask: AttentionMask,
    *,
    divisor: Float[Array, ""] | None = None,
    dropout: AttentionDropout | None = None,
    return_weights: bool = False,
    separate_beams: bool = False,
  ) -> tuple[Float[Array, "B T D"], Float[Array, "B H T S"] | None]:
    """The layer's output, before dropout and residual.

    Args:
      divisor: divides the attention logits (GPT-2's scaling by layer).
      separate_beams: each query has keys and values of its own, given as `T G`
        groups of heads, group by group.
    """
    axes, rules = ("batch", None, "heads", None), self.compute.rules
    query = sharding.constrain(self.query(states), axes, rules)
    query = checkpoint_name(query, "qkv")
    if divisor is not None:
      query = query / divisor.astype(query.dtype)
    if separate_beams:
      query = self._as_heads(query)
    context, weights = attention(
      query,
      *keys_values,
      mask,
      scale=self.config.attention_scale,
      platform=self.compute.platform,
      rules=rules,
      dropout=dropout,
      implementation=self.compute.attention,
      return_weights=return_weights,
    )
    if separate_beams:
      context = self._as_queries(context, states.shape[1])
    context = sharding.constrain(context, axes, rules)
    out = self.out(context)
    return out.astype(jnp.dtype(self.compute.dtype)), weights

  def _as_heads(
    self, query: Float[Array, "B T H K"]
  ) -> Float[Array, "B 1 HT K"]:
    """Queries as more heads, in the order group, query, head of the group."""
    groups = self.config.num_kv_heads
    batch, count, heads, width = query.shape
    query = query.reshape(batch, count, groups, heads // groups, width)
    return query.swapaxes(1, 2).reshape(batch, 1, -1, width)

  def _as_queries(
    self, context: Float[Array, "B 1 HT K"], count: int
  ) -> Float[Array, "B T H K"]:
    groups, heads = self.config.num_kv_heads, self.config.num_heads
    batch, _, _, width = context.shape
    context = context.reshape(batch, groups, count, heads // groups, width)
    return context.swapaxes(1, 2).reshape(batch, count, heads, width)
