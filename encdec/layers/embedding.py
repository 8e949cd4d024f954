"""Token, position and type embeddings, their norm and their projection."""

from typing import Any, assert_never

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from encdec import sharding
from encdec.config import PositionKind, StackConfig
from encdec.layers import dropout as dropout_lib
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.dense import Dense
from encdec.layers.norm import layer_norm
from encdec.layers.positions import sinusoids


class Table(nn.Module):
  """`rows` embeddings of which those from `used` on are padding: zero."""

  rows: int
  width: int
  std: float
  param_dtype: Any
  used: int | None = None

  def setup(self):
    self.embedding = self.param("embedding", self._init)

  def _init(self, key: Key[Array, ""]) -> Float[Array, "V E"]:
    used = self.rows if self.used is None else self.used
    init = nn.initializers.normal(self.std)
    table = init(key, (used, self.width), self.param_dtype)
    return jnp.pad(table, ((0, self.rows - used), (0, 0)))

  def __call__(
    self, ids: Int[Array, "B T"], dtype: Any
  ) -> Float[Array, "B T E"]:
    return jnp.take(self.embedding, ids, axis=0, mode="clip").astype(dtype)


class Embeddings(nn.Module):
  """The sum of what the architecture embeds, normed where it is."""

  config: StackConfig
  vocab_rows: int
  compute: ComputeConfig

  def setup(self):
    c = self.config

    def table(rows: int, used: int | None = None) -> Table:
      dtype = self.compute.param_dtype
      return Table(rows, c.embedding_width, c.init_std, dtype, used)

    self.tokens = table(self.vocab_rows, c.vocab_size)
    if c.position_kind == PositionKind.LEARNED:
      self.positions = table(c.max_positions + c.position_offset)
    if c.type_vocab_size:
      self.types = table(c.type_vocab_size)
    if c.embedding_norm:
      self.norm = layer_norm(c, self.compute)
    if c.embedding_projection:
      self.projection = Dense((c.width,), self.compute, c.init_std)

  def __call__(
    self,
    tokens: Int[Array, "B T"] | None,
    positions: Int[Array, "B T"],
    *,
    types: Int[Array, "B T"] | None = None,
    embeds: Float[Array, "B T E"] | None = None,
    dropout_key: Key[Array, ""] | None = None,
  ) -> Float[Array, "B T D"]:
    """Embeds tokens, or takes `embeds` in place of the table's rows."""
    c = self.config
    if (tokens is None) == (embeds is None):
      raise ValueError("pass either tokens or embeds, not both and not none")
    if types is not None and not c.type_vocab_size:
      raise ValueError(f"{c.name} has no token types; leave them out")
    # Float32 until the norm: three roundings less in bfloat16.
    if tokens is not None:
      states = self.tokens(tokens, jnp.float32) * c.embedding_scale
    else:
      assert embeds is not None
      states = embeds * c.given_embedding_scale
    states = states + self._of_positions(positions, states.dtype)
    if c.type_vocab_size:
      if types is None:
        types = jnp.zeros_like(positions)
      states = states + self.types(types, states.dtype)
    axes, rules = ("batch", None, None), self.compute.rules
    states = sharding.constrain(states, axes, rules)
    states = self.norm(states) if c.embedding_norm else states
    states = states.astype(self.compute.dtype)
    states = dropout_lib.dropout(
      states, dropout_key, c.embedding_dropout, rules
    )
    if not c.embedding_projection:
      return states
    return sharding.constrain(self.projection(states), axes, rules)

  def _of_positions(
    self, positions: Int[Array, "B T"], dtype: Any
  ) -> Float[Array, "B T D"]:
    c = self.config
    rows = positions + jnp.int32(c.position_offset)
    match c.position_kind:
      case PositionKind.LEARNED:
        return self.positions(rows, dtype)
      case PositionKind.SINUSOIDAL | PositionKind.FAIRSEQ:
        table = jnp.asarray(sinusoids(c))
        return jnp.take(table, rows, axis=0, mode="clip").astype(dtype)
      case other:
        assert_never(other)

  def table_of_tokens(self) -> Float[Array, "V E"]:
    """The token table, which a tied head multiplies with."""
    return self.tokens.embedding
