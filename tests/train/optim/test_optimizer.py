"""What is trained, and by which update."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax

from tests.train.optim.bases import BASE, tree_of
from train.optim.optimizer import make_optimizer, merge


def test_decay_goes_by_path_and_spares_biases_of_any_rank():
  config = dataclasses.replace(BASE, weight_decay=0.1)
  optimizer = make_optimizer(config, 10, 64)
  params, _ = optimizer.split(tree_of(jnp.ones))
  tx = optimizer.tx
  updates, _ = tx.update(optax.tree.zeros_like(params), tx.init(params), params)
  side = updates["encoder"]
  query = side["layers"]["self_attention"]["query"]
  for leaf in (
    query["kernel"],
    side["embeddings"]["tokens"]["embedding"],
    updates["enc_to_dec_proj"]["kernel"],
  ):
    np.testing.assert_allclose(leaf, np.full(leaf.shape, -0.05), rtol=1e-6)
  for leaf in (
    query["bias"],
    side["layers"]["mlp_norm"]["scale"],
    side["layers"]["mlp_norm"]["bias"],
    updates["enc_to_dec_proj"]["bias"],
  ):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))


def test_a_pooler_takes_no_part():
  params = tree_of(jnp.ones)
  optimizer = make_optimizer(BASE, 10, 64)
  trained, frozen = optimizer.split(params)
  assert frozen == {"encoder": {"pooler": params["encoder"]["pooler"]}}
  assert "pooler" not in trained["encoder"]
  assert merge(trained, frozen) == params
  moments = optimizer.tx.init(trained)
  assert "pooler" not in str(moments)


def test_adamw_with_clipping_is_its_definition(seed):
  rng = np.random.default_rng(seed)
  config = dataclasses.replace(BASE, weight_decay=0.1, clip_norm=0.7)
  tx = make_optimizer(config, 10, 64).tx
  value = rng.normal(size=(3, 4))
  params = {"kernel": jnp.asarray(value, jnp.float32)}
  state, m, v = tx.init(params), 0.0, 0.0
  for n in range(1, 4):
    grad = rng.normal(size=(3, 4))
    updates, state = tx.update(
      {"kernel": jnp.asarray(grad, jnp.float32)}, state, params
    )
    params = optax.apply_updates(params, updates)
    grad = grad * min(1, 0.7 / np.linalg.norm(grad))
    m, v = 0.9 * m + 0.1 * grad, 0.98 * v + 0.02 * grad**2
    step = (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.98**n)) + 1e-6)
    value = value - 0.5 * (step + 0.1 * value)
    np.testing.assert_allclose(params["kernel"], value, rtol=1e-4, atol=1e-5)
