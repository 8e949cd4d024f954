"""Trees that a caller passes are cast, and refused where they are old."""

import jax
import jax.numpy as jnp
import pytest

from encdec.hub import (
  to_flax457,
)


def test_casts_reach_floats_that_the_mask_names(tiny):
  half = tiny.to_bf16(tiny.params)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(half)} == {"bfloat16"}
  mask = jax.tree.map(lambda leaf: leaf.ndim > 1, tiny.params)
  mixed = tiny.to_fp16(tiny.params, mask)
  for leaf, held in zip(
    jax.tree.leaves(mixed), jax.tree.leaves(tiny.params), strict=True
  ):
    assert leaf.dtype == (jnp.float16 if held.ndim > 1 else jnp.float32)
  assert tiny.to_fp32(half)["encoder"]["pooler"]["bias"].dtype == jnp.float32


def test_an_old_tree_is_refused_and_its_converter_named(tiny, batch):
  old = to_flax457(tiny.params, tiny.config)
  with pytest.raises(ValueError, match="from_flax457"):
    tiny.params = old
  with pytest.raises(ValueError, match="from_flax457"):
    tiny(batch[0], decoder_input_ids=batch[1], params=old)
