"""The facts of a call of attention, by which an implementation is chosen."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key

from encdec import sharding
from encdec.types import KeyBlocks


@dataclasses.dataclass(frozen=True)
class AttentionDropout:
  """Dropout of attention, as PyTorch's ("weights") or T5's ("values").

  "values" draws once per key and head and masks the values, which equals
  dropping the same key for all queries and leaves fused kernels usable.
  """

  mode: str
  rate: float
  key: Key[Array, ""]
  rules: sharding.Rules | None

  def __post_init__(self):
    if self.mode not in ("weights", "values"):
      raise ValueError(
        f"attention dropout {self.mode!r} must be 'weights' or 'values'"
      )


@dataclasses.dataclass(frozen=True)
class AttentionFacts:
  """The static facts of a call; an implementation may refuse by them."""

  platform: str
  query_shape: tuple[int, ...]
  key_shape: tuple[int, ...]
  key_blocks: bool
  dtype: str
  dense: bool
  bias: bool
  softcap: bool
  sinks: bool
  weights_dropout: bool
  return_weights: bool


@runtime_checkable
class Implementation(Protocol):
  def refuses(self, facts: AttentionFacts) -> str | None: ...

  def __call__(self, *arrays: Any, **options: Any) -> Any: ...


def key_shape(
  k: Float[Array, "B S G K"] | KeyBlocks,
) -> tuple[int, int, int, int]:
  """B, S, G and K of keys in either layout."""
  if isinstance(k, KeyBlocks):
    batch, groups, *_, width, _ = k.blocks.shape
    return batch, k.count, groups, width
  batch, keys, groups, width = k.shape
  return batch, keys, groups, width
