"""The TPU's kernel, interpreted, against XLA's attention: values, gradients."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers import attention as attention_lib
from encdec.layers.kernels import splash
from encdec.layers.kernels.facts import AttentionDropout, AttentionFacts
from encdec.sharding import DEFAULT_RULES
from encdec.types import AttentionMask, RowLayout
from train.mesh import MeshConfig, make_mesh

K = 8
DROPOUT = AttentionDropout("values", 0.3, jax.random.key(3), DEFAULT_RULES)


def _segments(*rows):
  """Rows of runs: (1, 3), (2, 2) is 1 1 1 2 2."""
  return jnp.asarray([np.repeat(*zip(*row, strict=True)) for row in rows])


PACKED = _segments([(1, 50), (2, 40), (0, 40)], [(1, 90), (2, 39), (3, 1)])
PADDED = _segments([(1, 100), (0, 30)], [(1, 130)])
# Queries and keys of another number; in row 1 nothing is padding but a query.
TARGETS = _segments([(1, 9), (2, 8), (0, 3)], [(1, 12), (0, 8)])
SOURCES = _segments([(1, 30), (2, 90), (0, 10)], [(1, 130)])
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


def _arrays(mask, heads, groups, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  (batch, queries), keys = mask.query_segments.shape, mask.key_segments.shape[1]
  shapes = [(queries, heads), (keys, groups), (keys, groups), (queries, heads)]
  return [
    jnp.asarray(rng.normal(size=(batch, *shape, K)), dtype) for shape in shapes
  ]


def _seeing(mask):
  """Queries that see a key: what the others give is nobody's concern."""
  equal = mask.query_segments[:, :, None] == mask.key_segments[:, None]
  return np.asarray(equal.any(-1))[..., None, None]


def _attend(implementation, q, k, v, weights, mask, **options):
  """The output, and the gradient of its sum by `weights`."""

  def weighted(q, k, v):
    out, _ = attention_lib.attention(
      q,
      k,
      v,
      mask,
      scale=0.3,
      platform="cpu",
      implementation=implementation,
      **options,
    )
    return jnp.sum(out * weights), out

  value_and_grad = jax.value_and_grad(weighted, (0, 1, 2), has_aux=True)
  (_, out), grads = jax.jit(value_and_grad)(q, k, v)
  return out, *grads


def _compare(found, expected, other, tolerance):
  for name, *parts in zip(
    ("out", "q", "k", "v"), found, expected, other, strict=True
  ):
    a, b, c = (np.asarray(part, np.float32) for part in parts)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    assert np.abs(b - c).max() > 10 * tolerance, f"{name}: no control"


@pytest.mark.parametrize("name", CASES)
def test_it_is_xlas_attention(name):
  mask, heads, groups, options = CASES[name]
  q, k, v, weights = _arrays(mask, heads, groups)
  weights = weights * _seeing(mask)
  found, expected = (
    _attend(which, q, k, v, weights, mask, **options)
    for which in ("splash", "xla")
  )
  found, expected = (
    (out * _seeing(mask), *grads) for out, *grads in (found, expected)
  )
  # What the case is about, and nothing beside.
  plain = AttentionMask(mask.query_segments, mask.key_segments)
  if not mask.causal and not options:
    plain = AttentionMask()
  other = _attend("xla", q, k, v, weights, plain)
  _compare(found, expected, other, 1e-5)


def test_rows_of_several_blocks(set_constant):
  """Blocks that no query sees are left out, and two passes go backward."""
  set_constant(splash, "_LONGEST_BLOCK", 128)
  ids = jnp.concatenate([PACKED, PACKED + 3], axis=1)
  mask = AttentionMask(ids, ids, causal=True)
  arrays = _arrays(mask, 4, 2)
  found, expected = (
    _attend(which, *arrays, mask) for which in ("splash", "xla")
  )
  other = _attend("xla", *arrays, mask.replace(causal=False))
  _compare(found, expected, other, 1e-5)


def test_bfloat16_within_its_error():
  """About as far from the float32 result as XLA's own bfloat16."""
  mask, heads, groups, _ = CASES["causal"]
  exact = _attend("xla", *_arrays(mask, heads, groups), mask)
  arrays = _arrays(mask, heads, groups, jnp.bfloat16)
  for found, expected, true in zip(
    _attend("splash", *arrays, mask),
    _attend("xla", *arrays, mask),
    exact,
    strict=True,
  ):
    assert found.dtype == jnp.bfloat16
    error, allowed = (
      np.square(np.asarray(x, np.float32) - true).mean()
      for x in (found, expected)
    )
    assert 0 < error < 1.5**2 * allowed


def test_no_segments_are_one_segment():
  """Rows are filled up to whole blocks with keys that no query sees."""
  q, k, v, weights = _arrays(CASES["cross"][0], 2, 2)
  found, expected = (
    _attend(which, q, k, v, weights, AttentionMask())
    for which in ("splash", "xla")
  )
  other = _attend("xla", q, k, v, weights, CASES["cross"][0])
  _compare(found, expected, other, 1e-5)


def test_who_sees_no_key_gives_zeros_and_no_gradient():
  mask, heads, groups, _ = CASES["cross"]
  q, k, v, weights = _arrays(mask, heads, groups)
  out, *grads = _attend("splash", q, k, v, weights, mask)
  sees = np.broadcast_to(_seeing(mask), out.shape)
  assert not sees.all()
  assert (np.asarray(out)[~sees] == 0).all()
  _, *expected = _attend("splash", q, k, v, weights * _seeing(mask), mask)
  for grad, without in zip(grads, expected, strict=True):
    assert np.isfinite(grad).all()
    np.testing.assert_array_equal(grad, without)


def test_on_a_mesh_it_is_what_it_is_on_one_device():
  mask, *_, options = CASES["cross"]
  mask = jax.tree.map(lambda ids: jnp.tile(ids, (2, 1)), mask)
  arrays = _arrays(mask, 4, 2)
  attend = functools.partial(_attend, mask=mask, rules=DEFAULT_RULES, **options)
  alone = attend("splash", *arrays)
  with jax.set_mesh(make_mesh(MeshConfig(1, 2, 2, 2), jax.devices()[:8])):
    split = attend("splash", *arrays)
  for a, b in zip(alone, split, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  assert len(split[0].sharding.device_set) == 8


@pytest.mark.parametrize(
  "length, block, blocks",
  [(1, 128, 1), (128, 128, 1), (512, 512, 1), (513, 384, 2), (1408, 512, 3)],
)
def test_blocks_are_few_and_short(length, block, blocks):
  assert splash.block_size(length) == block
  assert -(-length // block) == blocks


@pytest.mark.parametrize(
  "message, changes",
  [
    ("it is a kernel for TPUs", {"platform": "gpu"}),
    ("not in float16", {"dtype": "float16"}),
    ("over a row's own keys", {"window": (2, 2)}),
  ],
)
def test_refusals(message, changes):
  facts = AttentionFacts(
    platform="tpu",
    query_shape=(2, 20, 2, K),
    key_shape=(2, 130, 2, K),
    key_blocks=False,
    dtype="float32",
    causal=False,
    window=(None, None),
    positions=False,
    segments=True,
    row_layout=RowLayout.ANY,
    dense=False,
    bias=False,
    softcap=False,
    sinks=False,
    weights_dropout=False,
    return_weights=False,
    mesh=False,
    rules=False,
    shards=(1, 1, 1),
  )
  implementation = splash.SplashAttention()
  assert implementation.refuses(facts) is None
  facts = dataclasses.replace(facts, **changes)
  assert message in (implementation.refuses(facts) or "")
