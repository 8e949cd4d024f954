"""Optimizers by name: each is optax's, applied to each layer's matrices."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.optim.bases import BASE
from train.optim import update_rules
from train.optim.matrices import is_stacked, matrix_axes
from train.optim.optimizer import make_optimizer
from train.optim.settings import OPTIMIZERS

STEPS, VOCAB, ROWS = 4, 11, 16
SHAPES = {
  "encoder/embeddings/tokens/embedding": (ROWS, 6),
  "encoder/layers/self_attention/query/kernel": (2, 6, 3, 4),
  "encoder/layers/self_attention/query/bias": (2, 3, 4),
  "encoder/layers/self_attention/out/kernel": (2, 3, 4, 6),
  "encoder/layers/mlp_norm/scale": (2, 6),
  "decoder/layers/mlp/down/kernel": (3, 8, 6),
  "decoder/head/bias": (ROWS,),
  "enc_to_dec_proj/kernel": (6, 6),
}


def nested(flat):
  tree = {}
  for path, leaf in flat.items():
    *folders, name = path.split("/")
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[name] = leaf
  return tree


def flat(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
    for path, leaf in leaves
  }


def draw(rng):
  """Values; those of the rows that pad a vocabulary are zero."""
  values = {}
  for path, shape in SHAPES.items():
    value = rng.normal(size=shape)
    if shape[0] == ROWS:
      value[VOCAB:] = 0
    values[path] = jnp.asarray(value, jnp.float32)
  return values


def config_of(name, **changes):
  decay = 0.1 if "weight_decay" in OPTIMIZERS[name] else 0.0
  return dataclasses.replace(
    BASE, name=name, lr=0.05, weight_decay=decay, **changes
  )


def ours(config, params, gradients):
  tx = make_optimizer(config, 10, 64).tx
  params = nested(params)
  state = tx.init(params)
  update = jax.jit(tx.update)
  for grads in gradients:
    updates, state = update(nested(grads), state, params)
    params = optax.apply_updates(params, updates)
  assert all(
    leaf.dtype == jnp.float32 or leaf.ndim == 0
    for leaf in jax.tree.leaves(state)
  )
  return flat(params)


def reference(config, path):
  """Optax's own optimizer, for one matrix or vector."""
  decay = config.weight_decay if path.endswith(("kernel", "embedding")) else 0.0
  adam = {"b1": config.b1, "b2": config.b2, "eps": config.eps}
  lr, name = config.lr, config.name
  if name == "muon":
    matrix = is_stacked(path) and path.endswith("kernel")
    if matrix:
      return optax.contrib.muon(lr, weight_decay=decay, consistent_rms=0.2)
    name = "adamw"
  match name:
    case "adamw":
      return optax.adamw(lr, **adam, weight_decay=decay)
    case "adam":
      return optax.adam(lr, **adam)
    case "lion":
      return optax.lion(lr, config.b1, config.b2, weight_decay=decay)
    case "lamb":
      if not path.endswith(("kernel", "embedding")):
        return optax.adam(lr, **adam)
      return optax.lamb(lr, **adam, weight_decay=decay)
    case "sgd":
      # Optax's has no decay: that of another one without a rate of its own.
      decayed = optax.chain(
        optax.add_decayed_weights(decay), optax.scale_by_learning_rate(lr)
      )
      return optax.chain(optax.trace(0.9), decayed)
    case "adafactor":
      # Its decay is not multiplied by the rate.
      return optax.adafactor(
        lr,
        min_dim_size_to_factor=update_rules.FACTORED_FROM,
        weight_decay_rate=lr * decay,
      )
  raise AssertionError(name)


def layer_by_layer(config, params, gradients):
  """Every layer's matrices one at a time, as plain optax has them."""
  found = {}
  for path, value in params.items():
    axes = matrix_axes(path)
    stacked = is_stacked(path)
    sizes = [math.prod(value.shape[axis] for axis in group) for group in axes]
    layers = value.shape[0] if stacked else 1
    as_list = lambda x, n=layers, sizes=sizes[stacked:]: x.reshape(n, *sizes)
    parts = []
    for layer, one in enumerate(as_list(value)):
      tx = reference(config, path)
      state = tx.init(one)
      for grads in gradients:
        updates, state = tx.update(as_list(grads[path])[layer], state, one)
        one = optax.apply_updates(one, updates)
      parts.append(np.asarray(one))
    found[path] = np.stack(parts).reshape(value.shape)
  return found


@pytest.fixture(autouse=True)
def small_matrices_are_factored(monkeypatch):
  monkeypatch.setattr(update_rules, "FACTORED_FROM", 6)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stack_is_a_list_of_layers(name, seed):
  rng = np.random.default_rng(seed)
  params, config = draw(rng), config_of(name)
  gradients = [draw(rng) for _ in range(STEPS)]
  found = ours(config, params, gradients)
  expected = layer_by_layer(config, params, gradients)
  assert set(found) == set(expected) == set(SHAPES)
  for path, value in expected.items():
    np.testing.assert_allclose(
      found[path], value, rtol=2e-4, atol=2e-5, err_msg=path
    )
    assert np.abs(value - np.asarray(params[path])).max() > 1e-3
  # Rows that pad a vocabulary stay zero.
  for path in ("encoder/embeddings/tokens/embedding", "decoder/head/bias"):
    assert not found[path][VOCAB:].any()


@pytest.mark.parametrize("name", ["adafactor", "muon", "lamb"])
def test_a_stack_is_not_one_matrix(name, seed):
  """The control: what a layer's matrix becomes is its own matter."""
  rng = np.random.default_rng(seed)
  params, config = draw(rng), config_of(name)
  gradients = [draw(rng) for _ in range(2)]
  path = "encoder/layers/self_attention/query/kernel"
  found = ours(config, params, gradients)[path]
  other = [grads | {path: grads[path].at[0].mul(3.0)} for grads in gradients]
  params = params | {path: params[path].at[0].mul(3.0)}
  changed = ours(config, params, other)[path]
  np.testing.assert_array_equal(changed[1], found[1])
  assert np.abs(changed[0] - found[0]).max() > 1e-3


def test_momentum_is_what_was_set(seed):
  rng = np.random.default_rng(seed)
  params, gradients = draw(rng), [draw(rng), draw(rng)]
  path = "encoder/layers/mlp_norm/scale"
  for momentum in (0.0, 0.5):
    found = ours(config_of("sgd", momentum=momentum), params, gradients)[path]
    one, two = (np.asarray(grads[path]) for grads in gradients)
    expected = np.asarray(params[path]) - 0.05 * ((1 + momentum) * one + two)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
