import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers.dropout import (
  SITES,
  dropout,
  keep_mask,
  keep_probability,
  stack_keys,
)

AXES = ("batch", None, None)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("width", [64, 63])
def test_rate(rate, width):
  mask = keep_mask(jax.random.key(1), (64, 32, width), rate, AXES, None)
  assert mask.shape == (64, 32, width)
  sigma = np.sqrt(rate * (1 - rate) / mask.size)
  assert abs(float(mask.mean()) - (1 - rate)) < 4 * sigma
  # The two halves of a word are independent draws.
  half = (width + 1) // 2
  both = float((mask[..., : width - half] & mask[..., half:]).mean())
  assert abs(both - (1 - rate) ** 2) < 8 * sigma


def test_the_mean_is_kept():
  states = jnp.ones((64, 32, 64))
  out = dropout(states, jax.random.key(0), 0.3, None)
  assert set(np.unique(np.asarray(out))) == {
    np.float32(0.0),
    np.float32(1.0 / keep_probability(0.3)),
  }
  assert abs(float(out.mean()) - 1.0) < 0.01


def test_off():
  states = jnp.ones((1, 2, 3))
  assert dropout(states, None, 0.5, None) is states
  assert dropout(states, jax.random.key(0), 0.0, None) is states


def test_layers_and_sites_draw_differently():
  keys = stack_keys(jax.random.key(0), 2)
  assert keys.shape == (3, SITES)
  masks = jax.vmap(lambda k: keep_mask(k, (1, 8, 64), 0.5, AXES, None))(
    keys.reshape(-1)
  )
  assert len({mask.tobytes() for mask in np.asarray(masks)}) == 3 * SITES


def test_a_key_of_a_site_is_folded_in_layer_by_layer():
  key = jax.random.key(0)
  one = jax.random.fold_in(jax.random.fold_in(key, 2), 3)
  assert (stack_keys(key, 4)[2, 3] == one).all()
  assert stack_keys(None, 4) is None
