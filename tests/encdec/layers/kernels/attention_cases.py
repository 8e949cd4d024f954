"""Calls of attention, and a kernel's results against XLA's attention."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from encdec.layers import attention as attention_lib
from encdec.layers.kernels.facts import AttentionDropout, AttentionFacts
from encdec.sharding import DEFAULT_RULES
from encdec.types import AttentionMask, RowLayout

K = 8
DROPOUT = AttentionDropout("values", 0.3, jax.random.key(3), DEFAULT_RULES)


def segments(*rows):
  """Rows of runs: (1, 3), (2, 2) is 1 1 1 2 2."""
  return jnp.asarray([np.repeat(*zip(*row, strict=True)) for row in rows])


PACKED = segments([(1, 50), (2, 40), (0, 40)], [(1, 90), (2, 39), (3, 1)])
PADDED = segments([(1, 100), (0, 30)], [(1, 130)])
# Queries and keys of another number; in row 1 nothing is padding but a query.
TARGETS = segments([(1, 9), (2, 8), (0, 3)], [(1, 12), (0, 8)])
SOURCES = segments([(1, 30), (2, 90), (0, 10)], [(1, 130)])
# Mask, heads, key/value heads, options.
CASES: dict[str, tuple[AttentionMask, int, int, dict[str, Any]]] = {
  "packed": (AttentionMask(PACKED, PACKED), 2, 2, {}),
  "padded": (AttentionMask(PADDED, PADDED), 2, 2, {"dropout": DROPOUT}),
  "causal": (AttentionMask(PACKED, PACKED, causal=True), 4, 2, {}),
  "cross": (AttentionMask(TARGETS, SOURCES), 2, 2, {"dropout": DROPOUT}),
  "window": (
    AttentionMask(PACKED, PACKED, causal=True, window=(5, None)),
    4,
    1,
    {"softcap": 0.8},
  ),
}


def arrays_of(mask, heads, groups, dtype=jnp.float32, width=K):
  rng = np.random.default_rng(0)
  (batch, queries), keys = mask.query_segments.shape, mask.key_segments.shape[1]
  shapes = [(queries, heads), (keys, groups), (keys, groups), (queries, heads)]
  return [
    jnp.asarray(rng.normal(size=(batch, *shape, width)), dtype)
    for shape in shapes
  ]


def seeing(mask):
  """Queries that see a key: what the others give is nobody's concern."""
  equal = mask.query_segments[:, :, None] == mask.key_segments[:, None]
  return np.asarray(equal.any(-1))[..., None, None]


def attend(implementation, q, k, v, weights, mask, scale=0.3, **options):
  """The output, and the gradient of its sum by `weights`."""

  def weighted(q, k, v):
    out, _ = attention_lib.attention(
      q,
      k,
      v,
      mask,
      scale=scale,
      platform="cpu",
      implementation=implementation,
      **options,
    )
    return jnp.sum(out * weights), out

  value_and_grad = jax.value_and_grad(weighted, (0, 1, 2), has_aux=True)
  (_, out), grads = jax.jit(value_and_grad)(q, k, v)
  return out, *grads


def compare(found, expected, other, tolerance):
  for name, *parts in zip(
    ("out", "q", "k", "v"), found, expected, other, strict=True
  ):
    a, b, c = (np.asarray(part, np.float32) for part in parts)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    assert np.abs(b - c).max() > 10 * tolerance, f"{name}: no control"


def facts_of(**changes):
  """Facts of a call on a TPU that kernels serve."""
  facts: dict[str, Any] = {
    "platform": "tpu",
    "query_shape": (2, 20, 2, K),
    "key_shape": (2, 130, 2, K),
    "key_blocks": False,
    "dtype": "float32",
    "causal": False,
    "window": (None, None),
    "positions": False,
    "segments": True,
    "row_layout": RowLayout.ANY,
    "dense": False,
    "bias": False,
    "softcap": False,
    "sinks": False,
    "weights_dropout": False,
    "return_weights": False,
    "mesh": False,
    "rules": False,
    "shards": (1, 1, 1),
  }
  return AttentionFacts(**facts | changes)
