"""Calling a model: `model(...)`, `encode`, `decode` and `init_cache`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from encdec.hub.facade import inputs, jitted
from encdec.hub.facade.base import ModelBase, RandomKey
from encdec.hub.facade.numpy_or_jax import AnyArray
from encdec.hub.facade.outputs import (
  DecoderCache,
  DecoderOutput,
  EncoderOutput,
  Seq2SeqOutput,
)
from encdec.hub.facade.padding import length_bucket
from encdec.hub.facade.supported_options import request
from encdec.types import Params

OptionalTree = Mapping[str, Any] | None
_NO_CACHE = (
  "a cache cannot be combined with train=True, decoder_inputs_embeds, "
  "output_attentions or output_hidden_states; leave out use_cache and "
  "past_key_values, or these"
)


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
    flags = output_attentions, output_hidden_states
    # What the arguments of `encode` and `decode` end with.
    options = (*flags, True, train, tree, dropout_rng)
    encoded: Any = encoder_outputs
    if encoded is None:
      _check_one_mask(attention_mask)
      encoded = self.encode(
        input_ids,
        attention_mask,
        position_ids,
        *options,
        token_type_ids=token_type_ids,
        inputs_embeds=inputs_embeds,
      )
    if (
      labels is not None and decoder_input_ids is decoder_inputs_embeds is None
    ):
      decoder_input_ids, decoder_attention_mask = self._from_labels(
        labels, decoder_attention_mask
      )
    decoded: Any = self.decode(
      decoder_input_ids,
      encoded,
      attention_mask,
      decoder_attention_mask,
      decoder_position_ids,
      past_key_values,
      *options,
      decoder_inputs_embeds=decoder_inputs_embeds,
      use_cache=use_cache,
    )
    loss = None if labels is None else self._loss(labels, decoded.logits)
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
    key = self._dropout_key(train, dropout_rng, tree)
    flags = self._flags(output_attentions, output_hidden_states)
    source = inputs.side_inputs(
      self.module.config.encoder,
      input_ids,
      attention_mask,
      position_ids,
      types=token_type_ids,
      embeds=inputs_embeds,
      ids_name="input_ids",
    )
    stack = jitted.encode(self.module, tree, source, key, *flags)
    output = EncoderOutput(stack.states, stack.hidden_states, stack.attentions)
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
    key = self._dropout_key(train, dropout_rng, tree)
    flags = self._flags(output_attentions, output_hidden_states)
    config, embeds = self.module.config, decoder_inputs_embeds
    states = encoder_outputs[0]
    inputs.check_states(
      states,
      config.encoder.width,
      decoder_input_ids if embeds is None else embeds,
    )
    segments, dense = inputs.as_mask(
      encoder_attention_mask, states.shape[:2], "the source"
    )
    if dense is not None:
      raise ValueError("the source's attention mask must be [batch, length]")
    target = decoder_input_ids, decoder_attention_mask, decoder_position_ids
    if past_key_values is not None or use_cache:
      if key is not None or embeds is not None or any(flags):
        raise ValueError(_NO_CACHE)
      output = self._decode_cached(
        tree, *target, states, segments, past_key_values
      )
    else:
      given = inputs.side_inputs(
        config.decoder, *target, embeds=embeds, ids_name="decoder_input_ids"
      )
      stack, logits = jitted.decode(
        self.module, tree, given, states, segments, key, *flags
      )
      output = DecoderOutput(
        logits=logits,
        hidden_states=stack.hidden_states,
        attentions=stack.attentions,
        cross_attentions=stack.cross_attentions,
      )
    return output if self._as_dict(return_dict) else output.to_tuple()

  def init_cache(
    self, batch_size: int, max_length: int, encoder_outputs: Any
  ) -> DecoderCache:
    """An empty cache for `max_length` tokens a row."""
    inputs.check_length(
      self.module.config.decoder, max_length, "a cache of max_length"
    )
    batch, sources = encoder_outputs[0].shape[:2]
    if batch != batch_size:
      raise ValueError(
        f"batch_size={batch_size}, and encoder_outputs hold {batch} rows"
      )
    return jitted.empty_cache(self.module, batch_size, max_length, sources)

  def _from_labels(self, labels: Any, mask: Any) -> tuple[Any, Any]:
    """The decoder's ids and mask of labels."""
    options = request(self.generation_config, None, {})
    tokens = self._tokens(options, need=("start", "pad"))
    return inputs.from_labels(labels, mask, tokens)

  def _loss(
    self, labels: Any, logits: Float[Array, "B T V"]
  ) -> Float[Array, ""]:
    vocabulary = self.module.config.decoder.vocab_size
    labels = inputs.check_labels(labels, logits.shape[:2], vocabulary)
    return inputs.mean_loss(logits, labels)

  def _decode_cached(
    self,
    tree: Params,
    ids: Any,
    mask: Any,
    position_ids: Any,
    states: Float[Array, "B S W"],
    segments: Int[AnyArray, "B S"],
    cache: DecoderCache | None,
  ) -> DecoderOutput:
    config = self.module.config.decoder
    ids = inputs.as_ids(ids, "decoder_input_ids", config.vocab_size)
    batch, count = ids.shape
    if cache is None:
      inputs.check_length(config, count, "decoder_input_ids")
      slots = length_bucket(count + 1, config.max_positions)
      cache = jitted.empty_cache(self.module, batch, slots, states.shape[1])
    elif not jitted.is_traced(cache):
      needed = int(cache.length) + count
      inputs.check_length(config, needed, "decoder_input_ids with the cache")
      if needed > cache.slots:
        cache = jitted.grown(cache, length_bucket(needed, config.max_positions))
    if mask is not None:
      key_mask = inputs.cache_mask(mask, batch, cache.slots)
      cache = dataclasses.replace(cache, key_mask=key_mask)
    if position_ids is not None:
      first = inputs.first_position(config)
      limit = config.max_positions + first
      rows = inputs.as_ids(position_ids, "decoder_position_ids", limit)
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


def _check_one_mask(mask: Any) -> None:
  """Refuses a mask for each query, which the decoder could not use."""
  if np.ndim(mask) > 2:
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
