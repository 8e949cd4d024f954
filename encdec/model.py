"""The encoder-decoder pair as pure functions of one parameter tree."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from encdec import adapters, explicit_axes, sharding
from encdec import platform as platform_lib
from encdec.blocks import LayerInputs
from encdec.config import EncDecConfig
from encdec.layers import kv_cache as cache_lib
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.dense import Dense
from encdec.layers.dropout import side_key, stack_keys
from encdec.masks import prompt_mask, rows_mask
from encdec.sharing import collapse
from encdec.stacks import Stack
from encdec.types import (
  AttentionMask,
  CrossCache,
  DecodeView,
  KeyValue,
  ModelOutput,
  Params,
  RowLayout,
  SelfCache,
  StackOutput,
)


class FlaxEncoderDecoderModule(nn.Module):
  """Any encoder and any decoder, joined by cross-attention.

  Only the "params" collection exists. Segments and positions are explicit:
  segment 0 is padding, positions start at 0. Dropout is on where a
  `dropout_key` (a typed key) is passed.

  Attributes:
    dtype: of the computation; softmax, norms' statistics and logits are
      float32 always.
    param_dtype: of the parameters that `init` makes.
    remat: see `encdec.stacks.remat_policy`.
    scan_unroll: layers a step of the scan.
    attention_dropout: "values" or "weights", see
      `encdec.layers.kernels.facts.AttentionDropout`.
    attention: the implementation, see `encdec.layers.kernels.select`.
    row_layout: what is promised of the segments of all rows that are encoded or
      decoded whole, see `encdec.types.RowLayout`; of rows whose
      `query_segments` are given nothing is.
    rules: where activations lie on the mesh; None leaves it to the compiler.
    platform, cores: what programs are compiled for; by default this machine's,
      looked up when the module is built, see `encdec.platform`.
  """

  config: EncDecConfig
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: str = "none"
  scan_unroll: int = 1
  attention_dropout: str = "values"
  attention: str = "auto"
  row_layout: RowLayout = RowLayout.ANY
  rules: sharding.Rules | None = None
  platform: str = dataclasses.field(default_factory=platform_lib.running)
  cores: int = dataclasses.field(default_factory=platform_lib.cores)

  def __post_init__(self):
    self.platform = platform_lib.named(self.platform)
    super().__post_init__()

  def setup(self):
    c = self.config
    compute = ComputeConfig(
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      platform=self.platform,
      rules=self.rules,
      remat=self.remat,
      scan_unroll=self.scan_unroll,
      attention_dropout=self.attention_dropout,
      attention=self.attention,
    )
    self.encoder = Stack(c.encoder, c.encoder_vocab_rows, compute)
    self.decoder = Stack(c.decoder, c.decoder_vocab_rows, compute)
    if c.needs_projection:
      features, std = (c.decoder.width,), c.decoder.init_std
      self.enc_to_dec_proj = Dense(features, compute, std)

  def encode(
    self,
    tokens: Int[Array, "B S"] | None,
    segments: Int[Array, "B S"],
    positions: Int[Array, "B S"],
    *,
    types: Int[Array, "B S"] | None = None,
    embeds: Float[Array, "B S E"] | None = None,
    query_segments: Int[Array, "B S"] | None = None,
    dense: Bool[Array, "B #H S S"] | None = None,
    dropout_key: Key[Array, ""] | None = None,
    output_attentions: bool = False,
    output_hidden_states: bool = False,
  ) -> StackOutput:
    """Encoder states of the source.

    `query_segments` default to `segments`; ones in their place are Hugging
    Face's rule, by which padding attends to the tokens.
    """
    self._check_axis_types(tokens=tokens, segments=segments, embeds=embeds)
    mask = rows_mask(
      segments, segments, query_segments, self.row_layout, dense=dense
    )
    inputs = LayerInputs(
      mask,
      dropout_keys=stack_keys(
        side_key(dropout_key, 0), self.config.encoder.num_layers
      ),
      weights=output_attentions,
    )
    return self.encoder(
      tokens,
      positions,
      inputs,
      types=types,
      embeds=embeds,
      hidden_states=output_hidden_states,
    )

  def decode_states(
    self,
    tokens: Int[Array, "B T"] | None,
    segments: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    encoder_states: Float[Array, "B S W"],
    encoder_segments: Int[Array, "B S"],
    *,
    types: Int[Array, "B T"] | None = None,
    embeds: Float[Array, "B T E"] | None = None,
    query_segments: Int[Array, "B T"] | None = None,
    dense: Bool[Array, "B #H T T"] | None = None,
    dropout_key: Key[Array, ""] | None = None,
    output_attentions: bool = False,
    output_hidden_states: bool = False,
  ) -> StackOutput:
    """Decoder states, one for each input token, before the head.

    Causality follows the index in the row, so that packed rows need no more
    than their segments. `encoder_states` are as `encode` gave them: the
    projection between different widths is applied here.
    """
    self._check_axis_types(
      tokens=tokens,
      segments=segments,
      embeds=embeds,
      encoder_states=encoder_states,
      encoder_segments=encoder_segments,
    )
    mask = functools.partial(
      rows_mask, segments, queries=query_segments, layout=self.row_layout
    )
    inputs = LayerInputs(
      mask(segments, dense=dense, causal=True),
      cross_states=self.project(encoder_states),
      cross_mask=mask(encoder_segments),
      dropout_keys=stack_keys(
        side_key(dropout_key, 1), self.config.decoder.num_layers
      ),
      weights=output_attentions,
    )
    return self.decoder(
      tokens,
      positions,
      inputs,
      types=types,
      embeds=embeds,
      hidden_states=output_hidden_states,
    )

  def _check_axis_types(self, **inputs: Array | None) -> None:
    """Raises ValueError for what is split as `explicit_axes.check` refuses."""
    explicit_axes.check({**inputs, **self.variables})

  def project(
    self, encoder_states: Float[Array, "B S W"]
  ) -> Float[Array, "B S D"]:
    """Encoder states in the decoder's width."""
    encoder_states = encoder_states.astype(self.dtype)
    if not self.config.needs_projection:
      return encoder_states
    return self.enc_to_dec_proj(encoder_states)

  def head(self, states: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Float32 logits; those of padding rows are the lowest finite number."""
    return self.decoder.logits(states)

  def __call__(
    self,
    encoder_tokens: Int[Array, "B S"],
    encoder_segments: Int[Array, "B S"],
    encoder_positions: Int[Array, "B S"],
    decoder_inputs: Int[Array, "B T"],
    decoder_segments: Int[Array, "B T"],
    decoder_positions: Int[Array, "B T"],
    *,
    dropout_key: Key[Array, ""] | None = None,
    output_attentions: bool = False,
    output_hidden_states: bool = False,
  ) -> ModelOutput:
    """Encodes, decodes and gives logits for every target position."""
    encoded = self.encode(
      tokens=encoder_tokens,
      segments=encoder_segments,
      positions=encoder_positions,
      dropout_key=dropout_key,
      output_attentions=output_attentions,
      output_hidden_states=output_hidden_states,
    )
    decoded = self.decode_states(
      tokens=decoder_inputs,
      segments=decoder_segments,
      positions=decoder_positions,
      encoder_states=encoded.states,
      encoder_segments=encoder_segments,
      dropout_key=dropout_key,
      output_attentions=output_attentions,
      output_hidden_states=output_hidden_states,
    )
    return ModelOutput(self.head(decoded.states), encoded, decoded)

  def cross_cache(
    self,
    encoder_states: Float[Array, "B S W"],
    encoder_segments: Int[Array, "B S"],
  ) -> CrossCache:
    """Keys and values of the source for every layer; made once a source."""
    self._check_axis_types(
      encoder_states=encoder_states, encoder_segments=encoder_segments
    )
    return self.decoder.cross_cache(
      self.project(encoder_states), encoder_segments
    )

  def prefill(
    self,
    tokens: Int[Array, "B P"],
    segments: Int[Array, "B P"],
    positions: Int[Array, "B P"],
    cross: CrossCache,
    *,
    cache_length: int,
  ) -> tuple[Float[Array, "B P V"], SelfCache]:
    """Reads a prompt into a fresh cache of `cache_length` slots.

    Prompt tokens of segment 0 are padding, which no token attends to.

    Raises:
      ValueError: the prompt is longer than the cache.
    """
    batch, length = tokens.shape
    if length > cache_length:
      raise ValueError(
        f"a prompt of {length} tokens does not fit a cache of {cache_length}"
      )
    view = DecodeView(
      slot=jnp.zeros((), jnp.int32),
      query_positions=positions,
      key_positions=jnp.pad(positions, ((0, 0), (0, cache_length - length))),
      visible=prompt_mask(segments, cache_length),
    )
    cache = self.empty_cache(batch, cache_length)
    return self.decode_step(tokens=tokens, view=view, cache=cache, cross=cross)

  def empty_cache(
    self,
    batch: int,
    cache_length: int,
    beams: int = 1,
    separate_beams: bool = False,
  ) -> SelfCache:
    """A cache of zeros; see `DecodeView` for `separate_beams`."""
    c = self.config.decoder
    rows = c.num_kv_heads * beams if separate_beams else c.num_kv_heads
    slots = cache_length if separate_beams else cache_length * beams
    shape = (batch, rows, slots, c.head_width)

    def zeros() -> KeyValue:
      pair = jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)
      if not separate_beams:
        # Separate beams may have to move, and are smaller without blocks.
        pair = cache_lib.as_cache(*pair, self.platform, beams)
      return jax.tree.map(
        lambda leaf: sharding.constrain(
          leaf, ("batch", "kv_heads", *(None,) * (leaf.ndim - 2)), self.rules
        ),
        pair,
      )

    return SelfCache(tuple(zeros() for _ in range(c.num_layers)))

  def decode_step(
    self,
    tokens: Int[Array, "B Q"],
    view: DecodeView,
    cache: SelfCache,
    cross: CrossCache,
  ) -> tuple[Float[Array, "B Q V"], SelfCache]:
    """Logits after each of Q new tokens: one a beam, or a prompt's (N = 1).

    The parameters must be in decoding form, see `unstack`.
    """
    mask = AttentionMask(
      query_segments=jnp.ones(tokens.shape, jnp.int32),
      # A batch may number its segments; here a row holds one source alone.
      key_segments=jnp.minimum(cross.segments, 1),
    )
    states, cache = self.decoder.step(tokens, view, cache, cross, mask)
    return self.head(states), cache


def init_params(
  module: FlaxEncoderDecoderModule, key: Key[Array, ""]
) -> Params:
  """Fresh stored parameters from a typed key.

  Jit it with shardings for large ones. The module applies what
  `encdec.sharing.expand` makes of them.
  """
  ids = jnp.zeros((1, 1), jnp.int32)
  # The row of one token has no batch to lay over a mesh, and suits no kernel.
  variables: Any = module.clone(rules=None, attention="xla").init(
    key,
    encoder_tokens=ids,
    encoder_segments=ids,
    encoder_positions=ids,
    decoder_inputs=ids,
    decoder_segments=ids,
    decoder_positions=ids,
  )
  stored = collapse(variables["params"], module.config)
  return adapters.add(stored, module.config.lora, key)


def param_shapes(module: FlaxEncoderDecoderModule) -> Params:
  """The tree of `init_params` as ShapeDtypeStructs; allocates nothing."""
  return jax.eval_shape(lambda: init_params(module, jax.random.key(0)))
