"""The adapters of a configuration."""

from encdec.adapters import LoraConfig
from train.config import Config
from train.errors import Refusal


def lora_config(config: Config) -> LoraConfig | None:
  """What the keys `model.lora_*` say; None: there are no adapters.

  Raises:
    Refusal, ValueError: a value that no adapter can have; it names the key.
  """
  model = config.model
  if model.lora_rank == 0:
    for key in ("lora_alpha", "lora_dora"):
      if model[key]:
        raise Refusal(
          f"model.{key} = {model[key]!r}, but model.lora_rank = 0, which makes "
          "no adapters: set a rank such as 8"
        )
    return None
  for key in ("lora_targets", "lora_unfrozen"):
    for pattern in model[key]:
      if not isinstance(pattern, str):
        raise Refusal(
          f"model.{key}: {pattern!r} is no pattern of paths; write it like "
          "'*/query'"
        )
  return LoraConfig(
    rank=model.lora_rank,
    alpha=model.lora_alpha or float(model.lora_rank),
    targets=tuple(model.lora_targets),
    dora=model.lora_dora,
    unfrozen=tuple(model.lora_unfrozen),
  )
