"""A step compiles once a bucket, and for no other shape."""

import jax
import jax.numpy as jnp
import pytest

from train import compiled_steps


def test_a_step_compiles_once_a_bucket_and_no_other_shape():
  step = compiled_steps.CompiledSteps(
    jax.jit(lambda state, batch: state + batch["encoder_tokens"].sum()),
    [(4, 2), (8, 2)],
  )

  def batch(source, dtype=jnp.int32):
    return {
      "encoder_tokens": jnp.ones((3, source), dtype),
      "decoder_inputs": jnp.ones((3, 2), jnp.int32),
    }

  assert step.is_new(batch(4))
  assert step(jnp.int32(1), batch(4)) == 13
  assert not step.is_new(batch(4))
  assert step(jnp.int32(1), batch(8)) == 25
  with pytest.raises(RuntimeError, match=r"shape \(6, 2\)"):
    step(jnp.int32(1), batch(6))
  with pytest.raises(TypeError, match="was compiled"):
    step(jnp.int32(1), batch(4, jnp.int16))
  assert sorted(step.programs) == [(4, 2), (8, 2)]
