"""The stored parameter tree and the applied one: adapters and sharing.

Adapters are merged first, so that those of a shared kernel serve both sides. A
shared array is stored once, under the encoder; both sides apply it, so that
its gradient is the sum of both.
"""

from collections.abc import Mapping
from typing import Any, assert_never

from encdec import adapters
from encdec.config import EncDecConfig, Share
from encdec.types import Params


def stored_path(path: str, share: Share) -> str:
  """The stored path of the leaf at `path` of the applied tree."""
  side, _, rest = path.partition("/")
  if side != "decoder":
    return path
  shared = {
    Share.NONE: False,
    Share.EMBEDDINGS: rest.startswith("embeddings/tokens/"),
    # The decoder's own: what no encoder has.
    Share.ALL: not rest.startswith(("layers/cross_attention", "head/")),
  }[share]
  return f"encoder/{rest}" if shared else path


def expand(stored: Params, config: EncDecConfig) -> Params:
  """The tree that the module applies; gradients flow back to `stored`."""
  stored = adapters.merge(stored, config.lora)
  if config.share == Share.NONE:
    return stored
  encoder, own = stored["encoder"], stored["decoder"]
  match config.share:
    case Share.EMBEDDINGS:
      tokens = {"tokens": encoder["embeddings"]["tokens"]}
      decoder = {**own, "embeddings": own.get("embeddings", {}) | tokens}
    case Share.ALL:
      shared = {
        name: part for name, part in encoder.items() if name != "pooler"
      }
      decoder = shared | own | {"layers": encoder["layers"] | own["layers"]}
    case other:
      assert_never(other)
  return {**stored, "decoder": decoder}


def collapse(applied: Params, config: EncDecConfig) -> Params:
  """The tree that is stored; of what is shared it keeps the encoder's."""

  def own(tree: Mapping[str, Any], prefix: str) -> Params:
    result = {}
    for name, value in tree.items():
      path = f"{prefix}{name}"
      if isinstance(value, Mapping):
        if inner := own(value, f"{path}/"):
          result[name] = inner
      elif stored_path(path, config.share) == path:
        result[name] = value
    return result

  return own(applied, "")


def share_of(stored: Mapping[str, Any]) -> Share:
  """The kind of sharing of a stored tree."""
  decoder = stored["decoder"]
  if "mlp" not in decoder["layers"]:
    return Share.ALL
  if "tokens" not in decoder.get("embeddings", {}):
    return Share.EMBEDDINGS
  return Share.NONE
