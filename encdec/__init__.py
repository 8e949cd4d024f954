"""Any pretrained encoder and any pretrained decoder, joined and fine-tuned."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from transformers import EncoderDecoderConfig

  from encdec.hub.facade.inputs import shift_tokens_right
  from encdec.hub.facade.model import FlaxEncoderDecoderModel
  from encdec.model import FlaxEncoderDecoderModule

__version__ = "0.1.0"

__all__ = [
  "EncoderDecoderConfig",
  "FlaxEncoderDecoderModel",
  "FlaxEncoderDecoderModule",
  "shift_tokens_right",
]


def __getattr__(name: str) -> Any:
  # Late, so that the modules can be used without transformers' import time.
  if name == "FlaxEncoderDecoderModule":
    from encdec.model import FlaxEncoderDecoderModule

    return FlaxEncoderDecoderModule
  if name == "FlaxEncoderDecoderModel":
    from encdec.hub.facade.model import FlaxEncoderDecoderModel

    return FlaxEncoderDecoderModel
  if name == "shift_tokens_right":
    from encdec.hub.facade.inputs import shift_tokens_right

    return shift_tokens_right
  if name == "EncoderDecoderConfig":
    from transformers import EncoderDecoderConfig

    return EncoderDecoderConfig
  raise AttributeError(f"module 'encdec' has no attribute {name!r}")
