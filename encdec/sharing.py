"""From the stored parameter tree to the tree that the model applies."""

from encdec.config import EncDecConfig, Share
from encdec.types import Params


def expand(stored: Params, config: EncDecConfig) -> Params:
  """The tree that the module applies; gradients flow back to `stored`."""
  if config.share != Share.NONE:
    raise ValueError(
      f"share={str(config.share)!r} is not supported yet; use 'none'"
    )
  return stored
