"""The outputs of calls: transformers' field names, as JAX pytrees.

A field may be read by attribute, by name, or by index, which skips the fields
that are None: `out[0]` is the loss when labels were given.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, cast

import jax
import numpy as np
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from encdec.generation.generate import Generated
from encdec.generation.search.options import SearchOptions
from encdec.hub.facade.numpy_or_jax import AnyArray, array_module
from encdec.types import CrossCache, SelfCache


class Fields:
  """Access to a struct's fields that are not None, in their order."""

  def keys(self) -> tuple[str, ...]:
    return tuple(
      field.name
      for field in dataclasses.fields(cast(Any, self))
      if getattr(self, field.name) is not None
    )

  def values(self) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.keys())

  def items(self) -> tuple[tuple[str, Any], ...]:
    return tuple(zip(self.keys(), self.values(), strict=True))

  def to_tuple(self) -> tuple[Any, ...]:
    return self.values()

  def get(self, name: str, default: Any = None) -> Any:
    return self[name] if name in self else default

  def __getitem__(self, key: str | int | slice) -> Any:
    if isinstance(key, str):
      if key not in self:
        raise KeyError(f"{key!r} is not in {self.keys()}")
      return getattr(self, key)
    return self.values()[key]

  def __contains__(self, name: object) -> bool:
    return name in self.keys()

  def __iter__(self) -> Iterator[str]:
    return iter(self.keys())

  def __len__(self) -> int:
    return len(self.keys())


@struct.dataclass
class EncoderOutput(Fields):
  """The output of `encode`. Hidden states are one more than the layers."""

  last_hidden_state: Float[Array, "B S D"] | None = None
  hidden_states: tuple[Float[Array, "B S D"], ...] | None = None
  attentions: tuple[Float[Array, "B H S S"], ...] | None = None


@struct.dataclass
class DecoderCache:
  """Keys and values of decoded tokens and of the source. Opaque to callers.

  `key_mask` is False at slots that no token may attend to; `length` counts
  the tokens held, and the next one goes to that slot; `placed` counts those
  of each row that took a position. `cross` holds zeros until `ready`: the first
  step fills it, with its own parameters.
  """

  decoder: SelfCache
  cross: CrossCache
  ready: Bool[Array, ""]
  key_mask: Bool[Array, "B T"]
  length: Int[Array, ""]
  placed: Int[Array, "B"]

  @property
  def slots(self) -> int:
    return self.key_mask.shape[1]


@struct.dataclass
class DecoderOutput(Fields):
  """The output of `decode`. Logits are float32."""

  logits: Float[Array, "B T V"] | None = None
  past_key_values: DecoderCache | None = None
  hidden_states: tuple[Float[Array, "B T D"], ...] | None = None
  attentions: tuple[Float[Array, "B H T T"], ...] | None = None
  cross_attentions: tuple[Float[Array, "B H T S"], ...] | None = None


@struct.dataclass
class Seq2SeqOutput(Fields):
  """The output of a call. The loss is the mean over labels other than -100."""

  loss: Float[Array, ""] | None = None
  logits: Float[Array, "B T V"] | None = None
  past_key_values: DecoderCache | None = None
  decoder_hidden_states: tuple[Float[Array, "B T D"], ...] | None = None
  decoder_attentions: tuple[Float[Array, "B H T T"], ...] | None = None
  cross_attentions: tuple[Float[Array, "B H T S"], ...] | None = None
  encoder_last_hidden_state: Float[Array, "B S D"] | None = None
  encoder_hidden_states: tuple[Float[Array, "B S D"], ...] | None = None
  encoder_attentions: tuple[Float[Array, "B H S S"], ...] | None = None


@struct.dataclass
class GenerateOutput(Fields):
  """The output of `generate`: R texts for each of B sources, as rows of B * R.

  `sequences` hold the start token, and padding at the end. What follows is
  None unless it was asked for; scores and logits are one array a step, of all
  N beams of each source as rows of B * N. `beam_indices` are rows of those, -1
  after the end. Attentions are one array a layer, over the whole sequences.
  """

  sequences: Int[Array, "BR T"] | None = None
  sequences_scores: Float[Array, "BR"] | None = None
  scores: tuple[Float[Array, "BN V"], ...] | None = None
  logits: tuple[Float[Array, "BN V"], ...] | None = None
  beam_indices: Int[Array, "BR T"] | None = None
  decoder_attentions: tuple[Float[Array, "BR H T T"], ...] | None = None
  cross_attentions: tuple[Float[Array, "BR H T S"], ...] | None = None


def generate_output(
  result: Generated, options: SearchOptions, prompt: int, batch: int
) -> GenerateOutput:
  """The output of the first `batch` sources of a search.

  Ends with the longest text, but under jit.
  """
  texts = batch * options.num_returned
  rows = (result.tokens, result.lengths, result.scores, result.parents)
  traced = isinstance(result.tokens, Tracer)
  of_one_device = not traced and len(result.tokens.devices()) == 1
  # Sliced on the host, where no shape has to be compiled.
  tokens, lengths, scores, parents = (
    jax.device_get(rows) if of_one_device else rows
  )
  length, steps = tokens.shape[1], tokens.shape[1] - prompt
  if not traced:
    length, steps = int(lengths[:texts].max()), int(result.steps)

  def put(array: Any) -> Any:
    if array is None or not of_one_device:
      return array
    if result.tokens.committed:
      return jax.device_put(array, *result.tokens.devices())
    return jax.device_put(array)

  def each_step(array: Array | None) -> Any:
    if array is None:
      return None
    return tuple(
      array[:batch, step].reshape(-1, array.shape[-1]) for step in range(steps)
    )

  if parents is not None:
    parents = _beam_indices(parents[:texts, prompt:length], options)
  if scores is not None:
    scores = put(scores[:texts]) if options.keep_scores else None
  return GenerateOutput(
    sequences=put(tokens[:texts, :length]),
    sequences_scores=scores,
    scores=each_step(result.step_scores),
    logits=each_step(result.step_logits),
    beam_indices=put(parents),
  )


def _beam_indices(
  parents: Int[AnyArray, "BR C"], options: SearchOptions
) -> Int[AnyArray, "BR C"]:
  xp = array_module(parents)
  row = xp.arange(parents.shape[0], dtype=np.int32)[:, None]
  first = row // options.num_returned * options.num_beams
  return xp.where(parents >= 0, parents + first, -1)
