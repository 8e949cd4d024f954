"""What all fused kernels of attention refuse, and how they are entered."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from encdec import sharding
from encdec.layers.kernels.facts import AttentionFacts
from encdec.types import AttentionMask

# Keys below which a TPU's kernels would compute on more filling than data.
_FEWEST_KEYS = 128
# Segments of what rows are filled up with: unlike each other and all of data's.
_NO_QUERY, _NO_KEY = np.iinfo(np.int32).min, np.iinfo(np.int32).min + 1

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
  if facts.shards[1] != facts.shards[2]:
    return (
      "a device would hold heads without their keys: sharding.heads and "
      "sharding.kv_heads differ"
    )
  return None


def skipped_on_tpus(facts: AttentionFacts) -> str | None:
  """Why "auto" passes over a kernel for TPUs that could serve a call."""
  if facts.platform != "tpu":
    return "other platforms than TPUs run it interpreted, for tests"
  if facts.key_shape[1] < _FEWEST_KEYS:
    return f"it would fill rows up to {_FEWEST_KEYS} keys"
  if not facts.rules:
    return (
      "without sharding rules it cannot tell whether arrays lie on several "
      "devices, where it has to be entered by shard"
    )
  return None


def segments(
  mask: AttentionMask,
) -> tuple[Int[Array, "B T"], Int[Array, "B S"]] | tuple[()]:
  """The segments of queries and keys, or none."""
  if mask.query_segments is None or mask.key_segments is None:
    return ()
  return mask.query_segments, mask.key_segments


def fill(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"],
  v: Float[Array, "B S G K"],
  ids: tuple[Int[Array, "B ..."], ...],
  filled: Callable[[int], int],
) -> tuple[
  Float[Array, "B t H K"],
  Float[Array, "B s G K"],
  Float[Array, "B s G K"],
  tuple[Int[Array, "B ..."], ...],
]:
  """Rows of the lengths that a kernel wants; no query sees what they have more.

  Args:
    ids: segments of queries and keys, or none; there are some where there are
      more keys.
    filled: the length that a row of some length gets.
  """
  more_queries = filled(q.shape[1]) - q.shape[1]
  more_keys = filled(k.shape[1]) - k.shape[1]
  if more_keys and not ids:
    ids = tuple(jnp.ones(x.shape[:2], jnp.int32) for x in (q, k))
  if ids:
    of_query, of_key = ids
    ids = (
      extend(of_query, 1, more_queries, _NO_QUERY),
      extend(of_key, 1, more_keys, _NO_KEY),
    )
  k, v = (extend(x, 1, more_keys, 0) for x in (k, v))
  return extend(q, 1, more_queries, 0), k, v, ids


def extend(x: Array, axis: int, more: int, value: float | int) -> Array:
  """An array with `more` entries at the end of an axis."""
  width = [(0, more if number == axis else 0) for number in range(x.ndim)]
  return jnp.pad(x, width, constant_values=value) if more else x


def by_shard(
  kernel: Callable[..., Float[Array, "B T H K"]],
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"],
  v: Float[Array, "B S G K"],
  segments: tuple[Int[Array, "B ..."], ...],
  rules: sharding.Rules | None,
  kept: Float[Array, "B G S"] | None = None,
) -> Float[Array, "B T H K"]:
  """`kernel(q, k, v, segments, kept)`, of what each device holds.

  The compiler cannot split a kernel: on a mesh it would gather its operands or
  refuse.
  """
  axes = (_AXES, _KEY_AXES, _KEY_AXES, ("batch",), ("batch", "kv_heads", None))
  return sharding.by_shard(
    kernel, (q, k, v, segments, kept), axes, _AXES, rules
  )
