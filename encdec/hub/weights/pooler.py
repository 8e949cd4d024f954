"""Decides whether an encoder has a pooler, which a checkpoint may lack."""

from transformers import PretrainedConfig

from encdec.config import Role, StackConfig
from encdec.hub.configs import set_pooler, stack_config
from encdec.hub.files.repo import Origin
from encdec.hub.weights.conversion import Checkpoint
from encdec.hub.weights.tensor_map import arch_of


def fit_pooler(config: PretrainedConfig, checkpoint: Checkpoint) -> None:
  """Sets in an encoder's config whether its checkpoint has a pooler.

  One with a head, such as a masked language model's, may be of a class without
  a pooler: the pair gets one all the same, as PyTorch gives it.

  Args:
    checkpoint: of the encoder, or of a pair.
  """
  set_pooler(config, True)
  stack = stack_config(config, Role.ENCODER)
  names = checkpoint.side_names(stack)
  headed = any(name.startswith("encoder.<head>.") for name in names)
  if stack.pooler and not headed:
    # If only a part is there, loading reports the rest as missing.
    set_pooler(config, not _pooler_names(stack).isdisjoint(names))


def fit_pooler_to(config: PretrainedConfig, name: str) -> None:
  """As `fit_pooler`, of the encoder in a folder or on the Hub.

  Raises:
    WeightFileError, HubError: its weights cannot be read.
  """
  fit_pooler(config, Checkpoint(Origin(name).weights(), name, "encoder"))


def choose_pooler(config: PretrainedConfig, wanted: object) -> None:
  """Follows PyTorch's keyword `add_pooling_layer` of an encoder.

  Raises:
    TypeError: its class takes no such keyword, or the value is no bool.
  """
  if not isinstance(wanted, bool):
    raise TypeError(f"encoder_add_pooling_layer={wanted!r} must be a bool")
  set_pooler(config, True)
  if not stack_config(config, Role.ENCODER).pooler:
    raise TypeError(
      f"encoder_add_pooling_layer={wanted}: {config.model_type} has no pooler; "
      "leave it out"
    )
  set_pooler(config, wanted)


def _pooler_names(stack: StackConfig) -> set[str]:
  rows = arch_of(stack).weights(stack)
  return {f"encoder.{w.hub}" for w in rows if w.path.startswith("pooler/")}
