"""The facts of a call of attention, by which an implementation is chosen."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Key

from encdec import sharding
from encdec.types import AttentionMask, KeyBlocks, RowLayout


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
  """The static facts of a call; an implementation may refuse by them.

  Attributes:
    positions: whether positions that the mask names decide who sees whom, and
      not the index in the row.
    segments: whether segments do.
    mesh: whether a mesh of several devices is set.
    rules: whether there are rules by which arrays lie on a mesh.
    shards: the parts into which rules and mesh split the batch, the heads and
      the key/value heads.
  """

  platform: str
  query_shape: tuple[int, ...]
  key_shape: tuple[int, ...]
  key_blocks: bool
  dtype: str
  causal: bool
  window: tuple[int | None, int | None]
  positions: bool
  segments: bool
  row_layout: RowLayout
  dense: bool
  bias: bool
  softcap: bool
  sinks: bool
  weights_dropout: bool
  return_weights: bool
  mesh: bool
  rules: bool
  shards: tuple[int, int, int]


@runtime_checkable
class Implementation(Protocol):
  """A way to compute attention; see `encdec.layers.attention.attention`.

  It names "ctx" (`jax.ad_checkpoint.checkpoint_name`) what it returns, and
  where it can what else of its forward pass its backward pass needs.
  """

  def refuses(self, facts: AttentionFacts) -> str | None:
    """Why it cannot serve a call; None where it can."""
    ...

  def auto_skips(self, facts: AttentionFacts) -> str | None:
    """Why "auto" shall pass over it where it could serve."""
    ...

  def __call__(self, *arrays: Any, **options: Any) -> Any: ...


def facts_of_mask(mask: AttentionMask) -> dict[str, Any]:
  """The facts that a mask states."""
  named = mask.query_positions is not None or mask.key_positions is not None
  ordered = mask.causal or mask.window != (None, None)
  return {
    "causal": mask.causal,
    "window": mask.window,
    "positions": named and ordered,
    "segments": (
      mask.query_segments is not None and mask.key_segments is not None
    ),
    "row_layout": mask.row_layout,
    "dense": mask.dense is not None,
  }


def facts_of_mesh(rules: sharding.Rules | None) -> dict[str, Any]:
  """The facts of the mesh that is set, and of the rules by which it is used."""
  axes = ("batch", "heads", "kv_heads")
  return {
    "mesh": jax.sharding.get_abstract_mesh().size > 1,
    "rules": rules is not None,
    "shards": tuple(sharding.shards(axis, rules) for axis in axes),
  }


def key_shape(
  k: Float[Array, "B S G K"] | KeyBlocks,
) -> tuple[int, int, int, int]:
  """B, S, G and K of keys in either layout."""
  if isinstance(k, KeyBlocks):
    batch, groups, *_, width, _ = k.blocks.shape
    return batch, k.count, groups, width
  batch, keys, groups, width = k.shape
  return batch, keys, groups, width
