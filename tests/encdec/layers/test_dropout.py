import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers.dropout import dropout, keep_mask, kept, site_key

AXES = ("batch", None, None)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("width", [64, 63])
def test_rate(rate, width):
  mask = keep_mask(jax.random.key(1), (64, 32, width), rate, AXES, None)
  assert mask.shape == (64, 32, width)
  sigma = np.sqrt(rate * (1 - rate) / mask.size)
  assert abs(float(mask.mean()) - (1 - rate)) < 4 * sigma
  # The two halves of a word are independent draws.
  pairs = mask[..., : width // 2 * 2].reshape(64, 32, -1, 2)
  both = float((pairs[..., 0] & pairs[..., 1]).mean())
  assert abs(both - (1 - rate) ** 2) < 8 * sigma


def test_the_mean_is_kept():
  states = jnp.ones((64, 32, 64))
  out = dropout(states, jax.random.key(0), 0.3, None)
  assert set(np.unique(np.asarray(out))) == {
    np.float32(0.0),
    np.float32(1.0 / kept(0.3)),
  }
  assert abs(float(out.mean()) - 1.0) < 0.01


def test_off():
  states = jnp.ones((1, 2, 3))
  assert dropout(states, None, 0.5, None) is states
  assert dropout(states, jax.random.key(0), 0.0, None) is states


def test_sites_draw_differently():
  key = jax.random.key(0)
  first, second = (
    keep_mask(site_key(key, site), (1, 8, 64), 0.5, AXES, None)
    for site in (0, 1)
  )
  again = keep_mask(site_key(key, 0), (1, 8, 64), 0.5, AXES, None)
  assert (first == again).all() and not (first == second).all()
