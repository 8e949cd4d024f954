"""Sources of a search are checked, whatever they are given as."""

import jax.numpy as jnp
import numpy as np
import pytest


def test_a_mask_for_each_query_is_not_for_generation(tiny, batch):
  encoded = tiny.encode(batch[0])
  length = batch[0].shape[1]
  with pytest.raises(ValueError, match=r"must be \[batch, length\]"):
    tiny.generate(
      encoder_outputs=encoded,
      attention_mask=np.ones((2, length, length), int),
    )


@pytest.mark.parametrize(
  ("states", "given", "message"),
  [
    ((2, 6, 16), {"attention_mask": [[1] * 6, [0] * 6]}, "source 1 is empty"),
    ((2, 6, 16), {"input_ids": np.ones((2, 4), int)}, r"it must be \[2, 6\]"),
    ((2, 6, 16), {"input_ids": np.ones((1, 6), int)}, r"it must be \[2, 6\]"),
    ((0, 6, 16), {}, "hold no source"),
    ((2, 0, 16), {}, "hold no source"),
    ((6, 16), {}, r"must be \[batch, length, 16\]"),
    ((2, 6, 7), {}, r"must be \[batch, length, 16\]"),
  ],
)
def test_encoder_outputs_are_checked_as_ids_are(tiny, states, given, message):
  with pytest.raises(ValueError, match=message):
    tiny.generate(encoder_outputs=(jnp.ones(states),), **given)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_no_source_is_refused(tiny, shape):
  with pytest.raises(ValueError, match="hold no source"):
    tiny.generate(np.zeros(shape, np.int32))
