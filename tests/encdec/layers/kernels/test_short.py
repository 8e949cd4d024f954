"""The kernel of short rows, interpreted, against XLA's attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers.kernels import short
from encdec.sharding import DEFAULT_RULES
from encdec.types import AttentionMask
from tests.encdec.layers.kernels.attention_cases import (
  CASES,
  DROPOUT,
  PACKED,
  arrays_of,
  attend,
  compare,
  facts_of,
  seeing,
)
from train.mesh import MeshConfig, make_mesh

CAUSAL = AttentionMask(PACKED, PACKED, causal=True)
PLAIN = AttentionMask(PACKED, PACKED)


# Heads of width 8 lie in one tile, of 64 two by two, of 128 one by one.
@pytest.mark.parametrize(
  ("mask", "other", "heads", "width", "options"),
  [
    (PLAIN, AttentionMask(), 2, 8, {}),
    (CASES["padded"][0], AttentionMask(), 4, 64, {"dropout": DROPOUT}),
    (CAUSAL, PLAIN, 2, 128, {"scale": 0.25}),
    (AttentionMask(causal=True), AttentionMask(), 2, 64, {"dropout": DROPOUT}),
    (CASES["cross"][0], AttentionMask(), 2, 64, {"dropout": DROPOUT}),
  ],
  ids=["packed", "padded", "causal", "no-segments", "cross"],
)
def test_it_is_xlas_attention(mask, other, heads, width, options):
  of_rows = mask if mask.query_segments is not None else PLAIN
  q, k, v, weights = arrays_of(of_rows, heads, heads, width=width)
  # Heads as wide as these would attend to one key alone.
  q = q * 8 / width
  sees = seeing(of_rows)
  weights = weights * sees
  found, expected, control = (
    attend(which, q, k, v, weights, mask, **options)
    for which, mask in (("short", mask), ("xla", mask), ("xla", other))
  )
  found, expected, control = (
    (out * sees, *grads) for out, *grads in (found, expected, control)
  )
  compare(found, expected, control, 1e-5)


def test_bfloat16_within_its_error():
  """About as far from the float32 result as XLA's own bfloat16."""
  exact = attend("xla", *arrays_of(CAUSAL, 2, 2), CAUSAL)
  arrays = arrays_of(CAUSAL, 2, 2, jnp.bfloat16)
  for found, expected, true in zip(
    attend("short", *arrays, CAUSAL),
    attend("xla", *arrays, CAUSAL),
    exact,
    strict=True,
  ):
    assert found.dtype == jnp.bfloat16
    error, allowed = (
      np.square(np.asarray(x, np.float32) - true).mean()
      for x in (found, expected)
    )
    assert 0 < error < 1.5**2 * allowed


def test_who_sees_no_key_gives_zeros_and_no_gradient():
  mask, heads, *_ = CASES["cross"]
  q, k, v, weights = arrays_of(mask, heads, heads)
  out, *grads = attend("short", q, k, v, weights, mask)
  sees = np.broadcast_to(seeing(mask), out.shape)
  assert not sees.all()
  assert (np.asarray(out)[~sees] == 0).all()
  _, *expected = attend("short", q, k, v, weights * seeing(mask), mask)
  for grad, without in zip(grads, expected, strict=True):
    assert np.isfinite(grad).all()
    np.testing.assert_array_equal(grad, without)


def test_on_a_mesh_it_is_what_it_is_on_one_device():
  """Tiles of whole heads on each device, and the same values dropped."""
  mask, *_ = CASES["cross"]
  mask = jax.tree.map(lambda ids: jnp.tile(ids, (2, 1)), mask)
  arrays = arrays_of(mask, 4, 4, width=64)
  attention = functools.partial(
    attend, mask=mask, rules=DEFAULT_RULES, dropout=DROPOUT
  )
  alone = attention("short", *arrays)
  with jax.set_mesh(make_mesh(MeshConfig(1, 2, 2, 2), jax.devices()[:8])):
    split = attention("short", *arrays)
  for a, b in zip(alone, split, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert len(split[0].sharding.device_set) == 8


@pytest.mark.parametrize(
  ("heads", "width", "tile"),
  [(12, 64, 128), (1, 64, 64), (3, 64, None), (4, 32, 128), (2, 256, 256)]
  + [(12, 80, None), (2, 8, 16)],
)
def test_a_tile_holds_whole_heads(heads, width, tile):
  assert short._tile(heads, width) == tile


@pytest.mark.parametrize(
  "message, changes",
  [
    ("it is a kernel for TPUs", {"platform": "gpu"}),
    ("not in float16", {"dtype": "float16"}),
    ("not 1 to 2", {"key_shape": (2, 130, 1, 64)}),
    ("neither windows nor a soft cap", {"window": (2, 2)}),
    ("neither windows nor a soft cap", {"softcap": True}),
    ("it adds no bias", {"bias": True}),
    (
      "513 queries x 512 keys are no short rows",
      {"query_shape": (2, 513, 2, 64), "key_shape": (2, 512, 2, 64)},
    ),
    (
      "2048 x 128 of float32 are too large a tile",
      {"query_shape": (2, 128, 2, 64), "key_shape": (2, 2048, 2, 64)},
    ),
    (
      "a device's 3 heads of width 64 fill no tiles",
      {
        "query_shape": (2, 130, 6, 64),
        "key_shape": (2, 130, 6, 64),
        "shards": (1, 2, 2),
      },
    ),
  ],
)
def test_refusals(message, changes):
  implementation = short.ShortAttention()
  assert implementation.refuses(facts_of()) is None
  assert message in (implementation.refuses(facts_of(**changes)) or "")
