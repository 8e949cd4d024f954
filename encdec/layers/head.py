"""The head: from decoder states to logits over the vocabulary."""

from typing import assert_never

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from encdec import sharding
from encdec.config import HeadKind, StackConfig
from encdec.layers.activations import activation
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.dense import Dense
from encdec.layers.matmul import skinny_matmul
from encdec.layers.norm import layer_norm


class Head(nn.Module):
  """Logits in float32; a tied head multiplies with the token table."""

  config: StackConfig
  vocab_rows: int
  compute: ComputeConfig

  def setup(self):
    c = self.config
    if c.head == HeadKind.TRANSFORM:
      self.transform = Dense((c.embedding_width,), self.compute, c.init_std)
      self.norm = layer_norm(c, self.compute)
    if not c.tied_head and not self.has_variable("params", "transposed"):
      self.param("kernel", self._init_kernel)
    if c.head_bias:
      shape, dtype = (self.vocab_rows,), self.compute.param_dtype
      self.bias = self.param("bias", nn.initializers.zeros_init(), shape, dtype)

  def _init_kernel(self, key) -> Float[Array, "E V"]:
    c = self.config
    init = nn.initializers.normal(c.init_std)
    shape = (c.embedding_width, c.vocab_size)
    kernel = init(key, shape, self.compute.param_dtype)
    return jnp.pad(kernel, ((0, 0), (0, self.vocab_rows - c.vocab_size)))

  def __call__(
    self, states: Float[Array, "... D"], table: Float[Array, "V E"]
  ) -> Float[Array, "... V"]:
    c = self.config
    match c.head:
      case HeadKind.TRANSFORM:
        states = activation(c.head_activation)(self.transform(states))
        states = self.norm(states)
      case HeadKind.LINEAR:
        pass
      case HeadKind.NONE:
        raise ValueError(f"{c.name} has no head, and so no logits")
      case other:
        assert_never(other)
    dtype = self.compute.dtype
    states = states.astype(dtype)
    bias = self._bias()
    if c.tied_head or self.has_variable("params", "transposed"):
      rows = table if c.tied_head else self.get_variable("params", "transposed")
      contract = ((states.ndim - 1,), (1,))
      logits = skinny_matmul(
        states,
        rows.astype(dtype),
        (contract, ((), ())),
        jnp.float32,
        self.compute.platform,
        bias=bias,
      )
    else:
      logits = jnp.einsum(
        "...E,EV->...V",
        states,
        self.get_variable("params", "kernel").astype(dtype),
        preferred_element_type=jnp.float32,
      )
      if bias is not None:
        logits += bias.reshape((1,) * (logits.ndim - 1) + bias.shape)
    axes = ("batch", *(None,) * (logits.ndim - 2), "logits")
    return sharding.constrain(logits, axes, self.compute.rules)

  def _bias(self) -> Float[Array, "V"] | None:
    """The bias, with the lowest number at padding rows, to hide them."""
    c = self.config
    rows, padded = self.vocab_rows, self.vocab_rows > c.vocab_size
    bias = self.bias.astype(jnp.float32) if c.head_bias else None
    if padded:
      bias = jnp.zeros((rows,), jnp.float32) if bias is None else bias
      real = jnp.arange(rows, dtype=jnp.int32) < c.vocab_size
      bias = jnp.where(real, bias, jnp.finfo(jnp.float32).min)
    return bias
