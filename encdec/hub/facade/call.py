"""Calling a model: `model(...)`, `encode`, `decode` and `init_cache`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from encdec.hub.facade import jitted
from encdec.hub.facade.base import ModelBase, RandomKey
from encdec.hub.facade.generation_options import request
from encdec.hub.facade.inputs import (
  SideInputs,
  as_ids,
  as_mask,
  cache_mask,
  check_labels,
  check_length,
  check_states,
  first_position,
  from_labels,
  mean_loss,
  side_inputs,
)
from encdec.hub.facade.numpy_or_jax import AnyArray
from encdec.hub.facade.outputs import (
  DecoderCache,
  DecoderOutput,
  EncoderOutput,
  Seq2SeqOutput,
)
from encdec.hub.facade.padding import length_bucket
from encdec.types import Params

OptionalTree = Mapping[str, Any] | None


class CallableModel(ModelBase):
  """`model(...)`, `encode`, `decode` and `init_cache`.

  Arrays may be JAX's, numpy's or traced; ids and masks are `[batch, length]`.
  All masks are nonzero where a token may be attended to.
  """

  def __call__(
    self,
    input_ids: Any = None,
    attention_mask: Any = None,
    decoder_input_ids: Any = None,
    decoder_attention_mask: Any = None,
    position_ids: Any = None,
    decoder_position_ids: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: OptionalTree = None,
    dropout_rng: RandomKey | None = None,
    *,
    token_type_ids: Any = None,
    inputs_embeds: Any = None,
    decoder_inputs_embeds: Any = None,
    encoder_outputs: Any = None,
    past_key_values: DecoderCache | None = None,
    labels: Any = None,
    use_cache: bool | None = None,
  ) -> Seq2SeqOutput | tuple[Any, ...]:
    """Encodes, decodes, and with `labels` gives the loss.

    Args:
      decoder_input_ids: made from `labels` when neither they nor
        `decoder_inputs_embeds` are given: shifted right, -100 as padding, and
        padding masked.
      position_ids, decoder_position_ids: rows of the position tables.
      train: dropout is on, and takes `dropout_rng`.
      params: in place of the model's own.
      encoder_outputs: of `encode`, in place of `input_ids`.
      use_cache: also gives `past_key_values` for further calls.

    Raises:
      ValueError: ids outside a vocabulary, rows longer than a position table,
        a special token that is needed and set nowhere.
    """
    tree = self._params_or(params)
    key = self._dropout_key(train, dropout_rng, tree)
    flags = self._flags(output_attentions, output_hidden_states)
    encoded = encoder_outputs
    if encoded is None:
      source = self._source(
        input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds
      )
      _check_one_mask(source)
      encoded = self._encode(tree, source, key, flags)
    if (
      labels is not None and decoder_input_ids is decoder_inputs_embeds is None
    ):
      decoder_input_ids, decoder_attention_mask = self._from_labels(
        labels, decoder_attention_mask
      )
    decoded = self._decode(
      tree,
      encoded,
      attention_mask,
      (decoder_input_ids, decoder_attention_mask, decoder_position_ids),
      decoder_inputs_embeds,
      past_key_values,
      bool(use_cache),
      key,
      flags,
    )
    loss = None if labels is None else self._loss(labels, decoded)
    output = _pair_output(loss, encoded, decoded)
    return output if self._as_dict(return_dict) else output.to_tuple()

  def encode(
    self,
    input_ids: Any = None,
    attention_mask: Any = None,
    position_ids: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: OptionalTree = None,
    dropout_rng: RandomKey | None = None,
    *,
    token_type_ids: Any = None,
    inputs_embeds: Any = None,
  ) -> EncoderOutput | tuple[Any, ...]:
    """The encoder alone; `attention_mask` may also be one for each query."""
    tree = self._params_or(params)
    source = self._source(
      input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds
    )
    output = self._encode(
      tree,
      source,
      self._dropout_key(train, dropout_rng, tree),
      self._flags(output_attentions, output_hidden_states),
    )
    return output if self._as_dict(return_dict) else output.to_tuple()

  def decode(
    self,
    decoder_input_ids: Any,
    encoder_outputs: Any,
    encoder_attention_mask: Any = None,
    decoder_attention_mask: Any = None,
    decoder_position_ids: Any = None,
    past_key_values: DecoderCache | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: OptionalTree = None,
    dropout_rng: RandomKey | None = None,
    *,
    decoder_inputs_embeds: Any = None,
    use_cache: bool | None = None,
  ) -> DecoderOutput | tuple[Any, ...]:
    """The decoder alone, attending to the output of `encode`.

    With `past_key_values` the ids follow those in the cache, and
    `decoder_attention_mask` counts from the cache's first token.
    """
    tree = self._params_or(params)
    output = self._decode(
      tree,
      encoder_outputs,
      encoder_attention_mask,
      (decoder_input_ids, decoder_attention_mask, decoder_position_ids),
      decoder_inputs_embeds,
      past_key_values,
      bool(use_cache),
      self._dropout_key(train, dropout_rng, tree),
      self._flags(output_attentions, output_hidden_states),
    )
    return output if self._as_dict(return_dict) else output.to_tuple()

  def init_cache(
    self, batch_size: int, max_length: int, encoder_outputs: Any
  ) -> DecoderCache:
    """An empty cache for `max_length` tokens a row."""
    check_length(
      self.module.config.decoder, max_length, "a cache of max_length"
    )
    batch, sources = encoder_outputs[0].shape[:2]
    if batch != batch_size:
      raise ValueError(
        f"batch_size={batch_size}, and encoder_outputs hold {batch} rows"
      )
    return jitted.empty_cache(self.module, batch_size, max_length, sources)

  def _source(self, ids, mask, position_ids, types, embeds) -> SideInputs:
    return side_inputs(
      self.module.config.encoder,
      ids,
      mask,
      position_ids,
      types=types,
      embeds=embeds,
      ids_name="input_ids",
    )

  def _encode(
    self,
    tree: Params,
    source: SideInputs,
    key: Key[Array, ""] | None,
    flags: tuple[bool, bool],
  ) -> EncoderOutput:
    output = jitted.encode(self.module, tree, source, key, *flags)
    return EncoderOutput(output.states, output.hidden_states, output.attentions)

  def _from_labels(self, labels: Any, mask: Any) -> tuple[Any, Any]:
    """The decoder's ids and mask of labels."""
    options = request(self.generation_config, None, {})
    tokens = self._tokens(options, need=("start", "pad"))
    return from_labels(labels, mask, tokens)

  def _loss(self, labels: Any, decoded: DecoderOutput) -> Float[Array, ""]:
    assert decoded.logits is not None
    vocabulary = self.module.config.decoder.vocab_size
    labels = check_labels(labels, decoded.logits.shape[:2], vocabulary)
    return mean_loss(decoded.logits, labels)

  def _decode(
    self,
    tree: Params,
    encoded: Any,
    encoder_mask: Any,
    target: tuple[Any, Any, Any],
    embeds: Any,
    past: DecoderCache | None,
    use_cache: bool,
    key: Key[Array, ""] | None,
    flags: tuple[bool, bool],
  ) -> DecoderOutput:
    ids, mask, position_ids = target
    states = encoded[0]
    width = self.module.config.encoder.width
    check_states(states, width, ids if embeds is None else embeds)
    segments, dense = as_mask(encoder_mask, states.shape[:2], "the source")
    if dense is not None:
      raise ValueError("the source's attention mask must be [batch, length]")
    cached = past is not None or use_cache
    if cached and (key is not None or embeds is not None or any(flags)):
      raise ValueError(
        "a cache cannot be combined with train=True, decoder_inputs_embeds, "
        "output_attentions or output_hidden_states; leave out use_cache and "
        "past_key_values, or these"
      )
    if cached:
      vocabulary = self.module.config.decoder.vocab_size
      ids = as_ids(ids, "decoder_input_ids", vocabulary)
      return self._decode_cached(
        tree, ids, mask, position_ids, states, segments, past
      )
    inputs = side_inputs(
      self.module.config.decoder,
      ids,
      mask,
      position_ids,
      embeds=embeds,
      ids_name="decoder_input_ids",
    )
    output, logits = jitted.decode(
      self.module, tree, inputs, states, segments, key, *flags
    )
    return DecoderOutput(
      logits=logits,
      hidden_states=output.hidden_states,
      attentions=output.attentions,
      cross_attentions=output.cross_attentions,
    )

  def _decode_cached(
    self,
    tree: Params,
    ids: Int[AnyArray, "B T"],
    mask: Any,
    position_ids: Any,
    states: Float[Array, "B S W"],
    segments: Int[AnyArray, "B S"],
    cache: DecoderCache | None,
  ) -> DecoderOutput:
    config = self.module.config.decoder
    batch, count = ids.shape
    if cache is None:
      check_length(config, count, "decoder_input_ids")
      slots = length_bucket(count + 1, config.max_positions)
      cache = jitted.empty_cache(self.module, batch, slots, states.shape[1])
    elif not jitted.is_traced(cache):
      needed = int(cache.length) + count
      check_length(config, needed, "decoder_input_ids with the cache")
      if needed > cache.slots:
        cache = jitted.grown(cache, length_bucket(needed, config.max_positions))
    if mask is not None:
      key_mask = cache_mask(mask, batch, cache.slots)
      cache = dataclasses.replace(cache, key_mask=key_mask)
    if position_ids is not None:
      first = first_position(config)
      limit = config.max_positions + first
      rows = as_ids(position_ids, "decoder_position_ids", limit)
      position_ids = jnp.broadcast_to(rows, ids.shape) - first
    logits, cache = jitted.decode_cached(
      self.module,
      self._decoding_params(tree),
      ids,
      position_ids,
      states,
      segments,
      cache,
    )
    return DecoderOutput(logits=logits, past_key_values=cache)


def _check_one_mask(source: SideInputs) -> None:
  """Refuses a mask for each query, which the decoder could not use."""
  if source.dense is not None:
    raise ValueError(
      "attention_mask has more than two axes: call encode() with it, and "
      "pass its result as encoder_outputs with a mask of [batch, length]"
    )


def _pair_output(
  loss: Float[Array, ""] | None, encoded: Any, decoded: DecoderOutput
) -> Seq2SeqOutput:
  return Seq2SeqOutput(
    loss=loss,
    logits=decoded.logits,
    past_key_values=decoded.past_key_values,
    decoder_hidden_states=decoded.hidden_states,
    decoder_attentions=decoded.attentions,
    cross_attentions=decoded.cross_attentions,
    encoder_last_hidden_state=encoded[0],
    encoder_hidden_states=getattr(encoded, "hidden_states", None),
    encoder_attentions=getattr(encoded, "attentions", None),
  )
