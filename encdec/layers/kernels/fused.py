"""What all fused kernels of attention refuse, and how they are entered."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from encdec import sharding
from encdec.layers.kernels.facts import AttentionFacts

_AXES = ("batch", None, "heads", None)
_KEY_AXES = ("batch", None, "kv_heads", None)


def refuses(facts: AttentionFacts) -> str | None:
  """Why no fused kernel serves a call; None where one may."""
  options = {
    "it takes no mask that is written out": facts.dense,
    "it adds no bias": facts.bias,
    "it has no sinks": facts.sinks,
    "it returns no weights": facts.return_weights,
    "it drops values, not weights": facts.weights_dropout,
    "keys lie in blocks, as a step of decoding on a CPU reads them": (
      facts.key_blocks
    ),
    "a row has one query": facts.query_shape[1] == 1,
    "the order of tokens is not that in the row": facts.positions,
    "a mesh is set, but no rules say where arrays lie on it": (
      facts.mesh and not facts.rules
    ),
  }
  for reason, holds in options.items():
    if holds:
      return reason
  (batch, _, heads, _), (_, _, groups, _) = facts.query_shape, facts.key_shape
  sizes = {"rows": batch, "heads": heads, "key/value heads": groups}
  for (what, size), parts in zip(sizes.items(), facts.shards, strict=True):
    if size % parts:
      return f"the mesh splits {size} {what} into {parts} parts"
  return None


def by_shard(
  kernel: Callable[..., Float[Array, "B T H K"]],
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"],
  v: Float[Array, "B S G K"],
  rows: tuple[Array, ...],
  rules: sharding.Rules | None,
) -> Float[Array, "B T H K"]:
  """`kernel(q, k, v, *rows)`, of the rows and heads that each device holds.

  The compiler cannot split a kernel: on a mesh it would gather its operands or
  refuse.
  """
  axes: tuple[Any, ...] = (_AXES, _KEY_AXES, _KEY_AXES)
  axes += (("batch",),) * len(rows)
  return sharding.by_shard(kernel, (q, k, v, *rows), axes, _AXES, rules)
