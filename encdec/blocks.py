"""Encoder and decoder blocks: attention, feed-forward, residuals and norms."""

from typing import assert_never

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Key

from encdec import sharding
from encdec.config import NormPosition, StackConfig
from encdec.layers import dropout as dropout_lib
from encdec.layers import kv_cache as cache_lib
from encdec.layers.attention import Attention
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.kernels.facts import AttentionDropout
from encdec.layers.mlp import Mlp
from encdec.layers.norm import layer_norm
from encdec.types import AttentionMask, KeyValue


@struct.dataclass
class LayerInputs:
  """The inputs that all layers share, made once outside the scan."""

  mask: AttentionMask
  cross_states: Float[Array, "B S W"] | None = None
  cross_mask: AttentionMask | None = None
  # Decoding only: where a step writes, the slots that it writes there, and
  # whether each beam attends to its own slots of the cache alone.
  slot: Int[Array, ""] | None = None
  beams_per_slot: int = struct.field(pytree_node=False, default=1)
  separate_beams: bool = struct.field(pytree_node=False, default=False)
  # See `encdec.layers.dropout.stack_keys`.
  dropout_keys: Key[Array, "rows sites"] | None = None
  weights: bool = struct.field(pytree_node=False, default=False)

  @property
  def residual_axes(self) -> sharding.Axes:
    """Logical axes of the states between sublayers; a step has no sequence."""
    return ("batch", "sequence" if self.slot is None else None, None)


@struct.dataclass
class LayerOutputs:
  """The outputs of a layer besides its states; None unless asked for."""

  attention: Float[Array, "B H T T"] | None = None
  cross_attention: Float[Array, "B H T S"] | None = None
  cache: KeyValue | None = None


class _Block(nn.Module):
  """The common part of the blocks: sublayers, residuals and norms."""

  config: StackConfig
  compute: ComputeConfig

  def setup(self):
    self.self_attention = self._attention()
    self.self_attention_norm = self._norm()
    self.mlp = Mlp(self.config, self.compute)
    self.mlp_norm = self._norm()

  def _attention(self) -> Attention:
    return Attention(self.config, self.compute)

  def _norm(self) -> nn.LayerNorm:
    return layer_norm(self.config, self.compute)

  def _before(self, norm: nn.LayerNorm, states: Array) -> Array:
    """The input of a sublayer."""
    match self.config.norm_position:
      case NormPosition.PRE:
        return norm(states)
      case NormPosition.POST:
        return states
      case other:
        assert_never(other)

  def _after(
    self,
    norm: nn.LayerNorm,
    states: Array,
    output: Array,
    keys: Key[Array, "sites"] | None,
    site: int,
    axes: sharding.Axes,
  ) -> Array:
    """The residual stream after a sublayer.

    Args:
      axes: of the states; see `LayerInputs.residual_axes`.
    """
    c, rules = self.config, self.compute.rules
    of_mlp = site == dropout_lib.MLP_OUTPUT
    output = dropout_lib.dropout(
      output,
      None if keys is None else keys[site],
      c.mlp_dropout if of_mlp else c.residual_dropout,
      rules,
      axes,
    )
    states = sharding.constrain(states + output, axes, rules)
    states = checkpoint_name(states, "out")
    match c.norm_position:
      case NormPosition.PRE:
        return states
      case NormPosition.POST:
        return norm(states)
      case other:
        assert_never(other)

  def _dropout(
    self, keys: Key[Array, "sites"] | None, site: int
  ) -> AttentionDropout | None:
    if keys is None or self.config.attention_dropout == 0.0:
      return None
    return AttentionDropout(
      self.compute.attention_dropout,
      self.config.attention_dropout,
      keys[site],
      self.compute.rules,
    )

  def _divisor(self, layer: Int[Array, ""]) -> Float[Array, ""] | None:
    if not self.config.scale_by_layer:
      return None
    return (layer + 1).astype(jnp.float32)

  def _self_attention(
    self,
    states: Array,
    layer: Int[Array, ""],
    inputs: LayerInputs,
    keys: Key[Array, "sites"] | None,
    cache: KeyValue | None,
  ):
    read = self._before(self.self_attention_norm, states)
    keys_values = self.self_attention.keys_values(read)
    if cache is not None:
      assert inputs.slot is not None, "a cache is written at a slot"
      cache = cache_lib.write(
        cache, *keys_values, inputs.slot, inputs.beams_per_slot
      )
      keys_values = cache_lib.read(cache)
    output, weights = self.self_attention.attend(
      read,
      keys_values,
      inputs.mask,
      divisor=self._divisor(layer),
      dropout=self._dropout(keys, dropout_lib.SELF_ATTENTION),
      return_weights=inputs.weights,
      separate_beams=inputs.separate_beams,
    )
    states = self._after(
      self.self_attention_norm,
      states,
      output,
      keys,
      dropout_lib.SELF_OUTPUT,
      inputs.residual_axes,
    )
    return states, weights, cache

  def _mlp(
    self,
    states: Array,
    keys: Key[Array, "sites"] | None,
    axes: sharding.Axes,
  ) -> Array:
    output = self.mlp(
      self._before(self.mlp_norm, states),
      None if keys is None else keys[dropout_lib.MLP_HIDDEN],
    )
    return self._after(
      self.mlp_norm, states, output, keys, dropout_lib.MLP_OUTPUT, axes
    )


class EncoderBlock(_Block):
  """Self-attention and a feed-forward layer."""

  def __call__(
    self,
    states: Float[Array, "B T D"],
    layer: Int[Array, ""],
    inputs: LayerInputs,
  ) -> tuple[Float[Array, "B T D"], LayerOutputs]:
    keys = _layer_keys(inputs, layer)
    states, weights, _ = self._self_attention(states, layer, inputs, keys, None)
    states = self._mlp(states, keys, inputs.residual_axes)
    return states, LayerOutputs(attention=weights)


class DecoderBlock(_Block):
  """Causal self-attention, cross-attention and a feed-forward layer."""

  def setup(self):
    super().setup()
    self.cross_attention = self._attention()
    self.cross_attention_norm = self._norm()

  def cross_keys_values(self, states: Float[Array, "B S D"]) -> KeyValue:
    """Keys and values of the source as the cache holds them."""
    key, value = self.cross_attention.keys_values(states)
    return cache_lib.as_cache(
      key.swapaxes(1, 2), value.swapaxes(1, 2), self.compute.platform
    )

  def __call__(
    self,
    states: Float[Array, "B T D"],
    layer: Int[Array, ""],
    inputs: LayerInputs,
    cache: KeyValue | None = None,
    cross: KeyValue | None = None,
  ) -> tuple[Float[Array, "B T D"], LayerOutputs]:
    keys = _layer_keys(inputs, layer)
    states, weights, cache = self._self_attention(
      states, layer, inputs, keys, cache
    )
    assert inputs.cross_mask is not None, "a decoder sees a source"
    if cross is None:
      assert inputs.cross_states is not None, "a decoder reads a source"
      source = self.cross_attention.keys_values(inputs.cross_states)
    else:
      source = cache_lib.read(cross)
    output, cross_weights = self.cross_attention.attend(
      self._before(self.cross_attention_norm, states),
      source,
      inputs.cross_mask,
      divisor=self._divisor(layer),
      dropout=self._dropout(keys, dropout_lib.CROSS_ATTENTION),
      return_weights=inputs.weights,
    )
    axes = inputs.residual_axes
    states = self._after(
      self.cross_attention_norm,
      states,
      output,
      keys,
      dropout_lib.CROSS_OUTPUT,
      axes,
    )
    states = self._mlp(states, keys, axes)
    return states, LayerOutputs(weights, cross_weights, cache)


def _layer_keys(
  inputs: LayerInputs, layer: Int[Array, ""]
) -> Key[Array, "sites"] | None:
  keys = inputs.dropout_keys
  return None if keys is None else keys[layer + 1]
