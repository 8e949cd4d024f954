"""The TPU's kernel, interpreted, against XLA's attention: values, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers.kernels import splash
from encdec.sharding import DEFAULT_RULES
from encdec.types import AttentionMask
from tests.encdec.layers.kernels.attention_cases import (
  CASES,
  PACKED,
  arrays_of,
  attend,
  compare,
  facts_of,
  seeing,
)
from train.mesh import MeshConfig, make_mesh


@pytest.mark.parametrize("name", CASES)
def test_it_is_xlas_attention(name):
  mask, heads, groups, options = CASES[name]
  q, k, v, weights = arrays_of(mask, heads, groups)
  weights = weights * seeing(mask)
  found, expected = (
    attend(which, q, k, v, weights, mask, **options)
    for which in ("splash", "xla")
  )
  found, expected = (
    (out * seeing(mask), *grads) for out, *grads in (found, expected)
  )
  # What the case is about, and nothing beside.
  plain = AttentionMask(mask.query_segments, mask.key_segments)
  if not mask.causal and not options:
    plain = AttentionMask()
  other = attend("xla", q, k, v, weights, plain)
  compare(found, expected, other, 1e-5)


def test_rows_of_several_blocks(set_constant):
  """Blocks that no query sees are left out, and two passes go backward."""
  set_constant(splash, "_LONGEST_BLOCK", 128)
  ids = jnp.concatenate([PACKED, PACKED + 3], axis=1)
  mask = AttentionMask(ids, ids, causal=True)
  arrays = arrays_of(mask, 4, 2)
  found, expected = (
    attend(which, *arrays, mask) for which in ("splash", "xla")
  )
  other = attend("xla", *arrays, mask.replace(causal=False))
  compare(found, expected, other, 1e-5)


def test_bfloat16_within_its_error():
  """About as far from the float32 result as XLA's own bfloat16."""
  mask, heads, groups, _ = CASES["causal"]
  exact = attend("xla", *arrays_of(mask, heads, groups), mask)
  arrays = arrays_of(mask, heads, groups, jnp.bfloat16)
  for found, expected, true in zip(
    attend("splash", *arrays, mask),
    attend("xla", *arrays, mask),
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
  q, k, v, weights = arrays_of(CASES["cross"][0], 2, 2)
  found, expected = (
    attend(which, q, k, v, weights, AttentionMask())
    for which in ("splash", "xla")
  )
  other = attend("xla", q, k, v, weights, CASES["cross"][0])
  compare(found, expected, other, 1e-5)


def test_who_sees_no_key_gives_zeros_and_no_gradient():
  mask, heads, groups, _ = CASES["cross"]
  q, k, v, weights = arrays_of(mask, heads, groups)
  out, *grads = attend("splash", q, k, v, weights, mask)
  sees = np.broadcast_to(seeing(mask), out.shape)
  assert not sees.all()
  assert (np.asarray(out)[~sees] == 0).all()
  _, *expected = attend("splash", q, k, v, weights * seeing(mask), mask)
  for grad, without in zip(grads, expected, strict=True):
    assert np.isfinite(grad).all()
    np.testing.assert_array_equal(grad, without)


def test_on_a_mesh_it_is_what_it_is_on_one_device():
  mask, *_, options = CASES["cross"]
  mask = jax.tree.map(lambda ids: jnp.tile(ids, (2, 1)), mask)
  arrays = arrays_of(mask, 4, 2)
  attention = functools.partial(
    attend, mask=mask, rules=DEFAULT_RULES, **options
  )
  alone = attention("splash", *arrays)
  with jax.set_mesh(make_mesh(MeshConfig(1, 2, 2, 2), jax.devices()[:8])):
    split = attention("splash", *arrays)
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
  implementation = splash.SplashAttention()
  assert implementation.refuses(facts_of()) is None
  assert message in (implementation.refuses(facts_of(**changes)) or "")
