"""Takes some of a checkpoint's layers to make a smaller model.

Rothe et al. 2020 make a decoder of 10 layers out of a model of 24 so.
"""

import re
from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

from encdec.config import Role, StackConfig
from encdec.hub.configs import stack_config
from encdec.hub.files.lazy_tensors import Tensors, TensorView
from encdec.hub.weights.tensor_map import arch_of


def choose_layers(
  name: str, layers: Any, config: PretrainedConfig, role: Role
) -> StackConfig:
  """Reduces a side's config to these layers; returns the whole model's.

  Args:
    name: what `layers` were given as, for messages.
    layers: numbers of the checkpoint's layers, from 0.

  Raises:
    ValueError: they are no such numbers, or its layers are one.
  """
  whole = stack_config(config, role)
  count = whole.num_layers
  if whole.stored_layers != count:
    raise ValueError(
      f"{name}={layers!r}: {whole.name} applies one layer {count} times, so "
      "there are none to choose; leave it out"
    )
  if (
    not isinstance(layers, Sequence)
    or not layers
    or any(type(n) is not int or not 0 <= n < count for n in layers)
  ):
    raise ValueError(
      f"{name}={layers!r} must be numbers of the checkpoint's layers, from 0 "
      f"to {count - 1}"
    )
  # In a sequence-to-sequence config the usual name counts encoder layers.
  of_decoder = hasattr(config, "decoder_layers")
  count_name = "decoder_layers" if of_decoder else "num_hidden_layers"
  config.update({count_name: len(layers)})
  return whole


def take_layers(
  tensors: Tensors, layers: Sequence[int], config: StackConfig
) -> Tensors:
  """The tensors of those layers, renumbered, and all outside layers.

  Args:
    config: of the model whose tensors they are.
  """
  starts = {
    weight.hub.split("{layer}")[0]
    for weight in arch_of(config).weights(config)
    if weight.layered
  }
  prefixes = "|".join(re.escape(start) for start in sorted(starts))
  layer = re.compile(rf"((?:.*\.)?(?:{prefixes}))(\d+)(\..*)")
  taken = {}
  for name in tensors:
    match = layer.fullmatch(name)
    if match is None:
      taken[name] = name
      continue
    for number, old in enumerate(layers):
      if old == int(match[2]):
        taken[f"{match[1]}{number}{match[3]}"] = name
  return TensorView(tensors, taken)
