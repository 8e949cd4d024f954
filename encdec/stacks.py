"""A side of the model: embeddings, layers scanned or looped over, a head."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from encdec.blocks import (
  DecoderBlock,
  EncoderBlock,
  LayerInputs,
  LayerOutputs,
)
from encdec.config import HeadKind, Role, StackConfig
from encdec.layers import dropout as dropout_lib
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.embedding import Embeddings
from encdec.layers.head import Head
from encdec.layers.norm import layer_norm
from encdec.types import (
  AttentionMask,
  CrossCache,
  DecodeView,
  Params,
  SelfCache,
  StackOutput,
)

REMAT_NAMES = ("qkv", "ctx", "out", "mlp")
_ON_HOST = "host:"


def remat_policy(
  name: str,
) -> tuple[Callable[..., Any] | None, bool]:
  """The `jax.checkpoint` policy of a name, and whether to checkpoint at all.

  "none" stores everything, "full" recomputes everything, and names joined by
  "+" ("qkv+ctx") store just those values of a layer; with "host:" before it a
  value is stored in the host's memory ("ctx+host:mlp"), which a CPU has not.

  Raises:
    ValueError: a name that no layer gives.
  """
  if name == "none":
    return None, False
  if name == "full":
    return jax.checkpoint_policies.nothing_saveable, True
  parts = name.split("+")
  values = [part.removeprefix(_ON_HOST) for part in parts]
  unknown = [value for value in values if value not in REMAT_NAMES]
  if unknown:
    raise ValueError(
      f"remat={name!r}: {unknown[0]!r} is unknown; use 'none', 'full' or names "
      f"out of {', '.join(REMAT_NAMES)} joined by '+', each with or without "
      f"{_ON_HOST!r} before it"
    )
  moved = [v for v, p in zip(values, parts, strict=True) if v != p]
  if moved:
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
      names_which_can_be_saved=[v for v in values if v not in moved],
      names_which_can_be_offloaded=moved,
      offload_src="device",
      offload_dst="pinned_host",
    )
    return policy, True
  return jax.checkpoint_policies.save_only_these_names(*values), True


class Stack(nn.Module):
  """One side: embeddings, layers, final norm, and a decoder's head.

  `layers` in the tree is one tree of arrays with a leading axis L, which is
  scanned, or a tuple of L trees, which is looped over: the decoding form.
  Where layers share their parameters, L is 1 and each layer reads them.
  """

  config: StackConfig
  vocab_rows: int
  compute: ComputeConfig

  def setup(self):
    c = self.config
    self.embeddings = Embeddings(c, self.vocab_rows, self.compute)
    if self.is_initializing():
      self.param("layers", self._init_layers)
      if c.pooler:
        self.param("pooler", self._init_pooler)
    if c.final_norm:
      self.final_norm = layer_norm(c, self.compute)
    if c.head != HeadKind.NONE:
      self.head = Head(c, self.vocab_rows, self.compute)

  def _block(self, whole_rows: bool = True) -> Any:
    """One layer, applied to parameters that it is given."""
    blocks = {Role.ENCODER: EncoderBlock, Role.DECODER: DecoderBlock}
    block, compute = blocks[self.config.role], self.compute
    if not whole_rows:
      # Kernels take no row of one token, and no mask that is written out.
      compute = dataclasses.replace(compute, attention="xla")
    return block(self.config, compute, parent=None)

  def _init_layers(self, key: Key[Array, ""]) -> Params:
    states = jnp.zeros((1, 1, self.config.width), self.compute.dtype)
    inputs = LayerInputs(
      AttentionMask(), cross_states=states, cross_mask=AttentionMask()
    )

    def init(key: Key[Array, ""]) -> Params:
      layer = jnp.zeros((), jnp.int32)
      block = self._block(whole_rows=False)
      return block.init(key, states, layer, inputs)["params"]

    return jax.vmap(init)(jax.random.split(key, self.config.stored_layers))

  def _init_pooler(self, key: Key[Array, ""]) -> Params:
    width, dtype = self.config.width, self.compute.param_dtype
    init = nn.initializers.normal(self.config.init_std)
    return {
      "kernel": init(key, (width, width), dtype),
      "bias": jnp.zeros((width,), dtype),
    }

  def __call__(
    self,
    tokens: Int[Array, "B T"] | None,
    positions: Int[Array, "B T"],
    inputs: LayerInputs,
    *,
    types: Int[Array, "B T"] | None = None,
    embeds: Float[Array, "B T E"] | None = None,
    hidden_states: bool = False,
  ) -> StackOutput:
    """Runs every layer over a whole row."""
    keys = inputs.dropout_keys
    key = None if keys is None else keys[0, dropout_lib.EMBEDDING]
    states = first = self.embeddings(
      tokens, positions, types=types, embeds=embeds, dropout_key=key
    )
    layers = self.get_variable("params", "layers")
    if isinstance(layers, tuple):
      states, hidden, outputs = self._loop(layers, states, inputs)
    else:
      states, hidden, outputs = self._scan(
        layers, states, inputs, hidden_states
      )
    if self.config.final_norm:
      states = self.final_norm(states)
    return StackOutput(
      states=states,
      # The last layer's output counts after the final norm.
      hidden_states=(first, *hidden[:-1], states) if hidden_states else None,
      attentions=_each(outputs.attention, self.config.num_layers),
      cross_attentions=_each(outputs.cross_attention, self.config.num_layers),
    )

  def _scan(
    self,
    layers: Params,
    states: Array,
    inputs: LayerInputs,
    hidden_states: bool,
  ) -> tuple[Array, Any, LayerOutputs]:
    block = self._block()
    count = self.config.num_layers
    shared = None
    if self.config.stored_layers < count:
      # Closed over: scanned, the one layer would have to be copied.
      shared = jax.tree.map(lambda leaf: leaf.squeeze(0), layers)

    def body(states, xs):
      params, layer = xs
      params = params if shared is None else shared
      states, outputs = block.apply({"params": params}, states, layer, inputs)
      return states, (states if hidden_states else None, outputs)

    policy, checkpointed = remat_policy(self.compute.remat)
    if _ON_HOST in self.compute.remat and self.compute.platform == "cpu":
      raise ValueError(
        f"remat={self.compute.remat!r}: a CPU's memory is the host's already; "
        f"leave {_ON_HOST!r} out"
      )
    if checkpointed:
      body = jax.checkpoint(body, policy=policy, prevent_cse=False)
    scanned = self._scanned(layers) if shared is None else None
    states, (hidden, outputs) = jax.lax.scan(
      body,
      states,
      (scanned, jnp.arange(count, dtype=jnp.int32)),
      unroll=min(self.compute.scan_unroll, count),
    )
    return states, _each(hidden, count), outputs

  def _scanned(self, layers: Params) -> Params:
    """Layers with kernels as matrices `L I O` in the dtype of the computation.

    Made in the scan's body, they would be stacked once more for the backward
    pass, and gradients would be stacked in the dtype of the parameters.
    """
    dtype = jnp.dtype(self.compute.dtype)

    def matrix(name: str, kernel: Array) -> Array:
      if dtype.itemsize < kernel.dtype.itemsize:
        kernel = kernel.astype(dtype)
      # Heads and their width, as outputs, or as inputs of what joins them.
      count, first, *_, last = kernel.shape
      whole = (-1, last) if name == "out" else (first, -1)
      return kernel.reshape(count, *whole) if kernel.ndim > 3 else kernel

    def visit(name: str, tree: Any) -> Any:
      if not isinstance(tree, Mapping):
        return tree
      tree = {key: visit(key, child) for key, child in tree.items()}
      if "kernel" in tree:
        tree["matrix"] = matrix(name, tree.pop("kernel"))
      return tree

    return visit("", layers)

  def _loop(
    self, layers: tuple[Params, ...], states: Array, inputs: LayerInputs
  ) -> tuple[Array, Any, LayerOutputs]:
    block = self._block()
    hidden: list[Any] = []
    attentions: list[Any] = []
    cross: list[Any] = []
    for index, params in enumerate(self._repeated(layers)):
      layer = jnp.asarray(index, jnp.int32)
      states, out = block.apply({"params": params}, states, layer, inputs)
      hidden.append(states)
      attentions.append(out.attention)
      cross.append(out.cross_attention)
    # A tuple of arrays where the scan has one with a leading axis.
    weights: Any = tuple(attentions) if inputs.weights else None
    cross_weights: Any = tuple(cross) if cross[0] is not None else None
    outputs = LayerOutputs(weights, cross_weights)
    return states, tuple(hidden), outputs

  def cross_cache(
    self, states: Float[Array, "B S D"], segments: Int[Array, "B S"]
  ) -> CrossCache:
    """Cross-attention keys and values of every layer, made once a source."""
    apply = functools.partial(
      self._block().apply, method=DecoderBlock.cross_keys_values
    )
    layers = tuple(
      apply({"params": params}, states) for params in self._decoding_layers()
    )
    return CrossCache(layers, segments)

  def step(
    self,
    tokens: Int[Array, "B Q"],
    view: DecodeView,
    cache: SelfCache,
    cross: CrossCache,
    cross_mask: AttentionMask,
  ) -> tuple[Float[Array, "B Q D"], SelfCache]:
    """States of Q new tokens a row, which are written into the cache."""
    states = self.embeddings(tokens, view.query_positions)
    beams_per_slot = cache.layers[0][1].shape[2] // view.key_positions.shape[1]
    visible = view.visible[:, None]
    if view.separate_beams:
      visible = self._by_heads(view.visible)
    # Made once a step: fused into the attention of each layer it would be
    # made again there, for each head.
    visible = jax.lax.optimization_barrier(visible)
    inputs = LayerInputs(
      AttentionMask(dense=visible),
      cross_mask=cross_mask,
      slot=view.slot,
      beams_per_slot=beams_per_slot,
      separate_beams=view.separate_beams,
    )
    block, held = self._block(whole_rows=False), []
    for index, params in enumerate(self._decoding_layers()):
      states, outputs = block.apply(
        {"params": params},
        states,
        jnp.asarray(index, jnp.int32),
        inputs,
        cache=cache.layers[index],
        cross=cross.layers[index],
      )
      held.append(outputs.cache)
    if self.config.final_norm:
      states = self.final_norm(states)
    return states, SelfCache(tuple(held))

  def _by_heads(self, visible: Bool[Array, "B N T"]) -> Bool[Array, "B HN 1 T"]:
    """Each beam's own mask for each head, in the order of `Attention`."""
    c = self.config
    batch, beams, slots = visible.shape
    shape = (batch, c.num_kv_heads, beams, c.num_heads // c.num_kv_heads, slots)
    visible = jnp.broadcast_to(visible[:, None, :, None], shape)
    return visible.reshape(batch, -1, 1, slots)

  def logits(self, states: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Float32 logits; those of padding rows are the lowest finite number."""
    return self.head(states, self.embeddings.table_of_tokens())

  def _decoding_layers(self) -> tuple[Params, ...]:
    layers = self.get_variable("params", "layers")
    if not isinstance(layers, tuple):
      raise ValueError(
        "decoding takes a tree a layer: pass unstack(params, module), made once"
      )
    return self._repeated(layers)

  def _repeated(self, layers: tuple[Params, ...]) -> tuple[Params, ...]:
    """The parameters that each layer reads: a shared tree stands again."""
    return layers * (self.config.num_layers // len(layers))


def _each(stacked, count: int):
  """A tuple with one array a layer out of scan's stacked outputs."""
  if stacked is None or isinstance(stacked, tuple):
    return stacked
  return tuple(stacked[index] for index in range(count))
