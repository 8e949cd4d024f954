"""Adapters: what is merged, what is drawn, which kernels have them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from encdec import adapters
from encdec.adapters import LoraConfig
from encdec.archs import ARCHS
from encdec.config import EncDecConfig, Share
from encdec.model import FlaxEncoderDecoderModule, init_params
from encdec.sharing import expand

ALL = ("*/query", "*/key", "*/value", "*/out", "*/mlp/*")


def _lora(**changes) -> LoraConfig:
  return LoraConfig(**{"rank": 3, "alpha": 6.0, "targets": ALL} | changes)


@pytest.fixture(scope="module")
def pair():
  """`pair(lora, share)`: its config; BERT and BERT, of width 8."""

  def config(lora, share="none"):
    bert = ARCHS["bert"]
    hub = bert.PRESETS["tiny"] | {
      "vocab_size": 13,
      "hidden_size": 8,
      "num_attention_heads": 2,
      "intermediate_size": 12,
      "max_position_embeddings": 10,
    }
    sides = (bert.stack_config(hub, role) for role in ("encoder", "decoder"))
    return EncDecConfig(*sides, share=Share(share), lora=lora)

  return config


@functools.cache
def _params(config, dtype=jnp.float32):
  module = FlaxEncoderDecoderModule(config, param_dtype=dtype)
  return jax.jit(lambda key: init_params(module, key))(jax.random.key(1))


def _moved(params):
  """Adapters as training might leave them."""
  rng = np.random.default_rng(0)

  def move(path, leaf):
    if path[-1].key not in adapters.LEAVES:
      return leaf
    return leaf + rng.normal(size=leaf.shape, scale=0.3).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(move, params)


def _flat(tree) -> dict[str, Any]:
  return traverse_util.flatten_dict(tree, sep="/")


def _matrix(array, inputs):
  """A layer's array as a matrix of `inputs` rows, in float64."""
  return np.asarray(array, np.float64).reshape(inputs, -1)


def test_a_start_equals_the_base_bit_for_bit(pair):
  base = _params(pair(None))
  adapted = _params(pair(_lora()))
  extra = set(_flat(adapted)) - set(_flat(base))
  assert len(extra) == 2 * (6 + 10)
  merged = adapters.merge(adapted, _lora())
  assert jax.tree.structure(merged) == jax.tree.structure(base)
  for path, leaf in _flat(merged).items():
    np.testing.assert_array_equal(leaf, _flat(base)[path], err_msg=path)
  moved = adapters.merge(_moved(adapted), _lora())
  changed = [
    path
    for path, leaf in _flat(moved).items()
    if not np.array_equal(leaf, _flat(base)[path])
  ]
  assert len(changed) == 16


def test_dora_starts_at_the_base_too(pair):
  lora = _lora(dora=True)
  base, merged = _params(pair(None)), adapters.merge(_params(pair(lora)), lora)
  for path, leaf in _flat(merged).items():
    np.testing.assert_allclose(leaf, _flat(base)[path], rtol=3e-7, err_msg=path)


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_of_a_bfloat16_base_are_float32(pair, dora):
  """They start at the base exactly, though lengths are no bfloat16 numbers."""
  lora = _lora(dora=dora)
  params = _params(pair(lora), jnp.bfloat16)
  base = _flat(adapters.without(params))
  for path, leaf in _flat(params).items():
    own = path.rpartition("/")[2] in adapters.LEAVES
    assert leaf.dtype == (jnp.float32 if own else jnp.bfloat16), path
  for path, leaf in _flat(adapters.merge(params, lora)).items():
    assert leaf.dtype == jnp.bfloat16
    np.testing.assert_array_equal(leaf, base[path], err_msg=path)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", ["query", "out", "up", "down"])
def test_merged_equals_unmerged(pair, name, dora):
  """x @ W + scale * (x @ A) @ B, with columns of their own length in DoRA."""
  lora = _lora(dora=dora)
  part = "mlp" if name in ("up", "down") else "self_attention"
  at = f"encoder/layers/{part}/{name}"
  params = _moved(_params(pair(lora)))
  merged = _flat(adapters.merge(params, lora))
  flat = _flat(params)
  inputs = {"down": 12}.get(name, 8)
  x = np.random.default_rng(0).normal(size=(5, inputs))
  for layer in range(2):
    kernel = _matrix(flat[f"{at}/kernel"][layer], inputs)
    a = _matrix(flat[f"{at}/lora_a"][layer], inputs)
    b = _matrix(flat[f"{at}/lora_b"][layer], 3)
    expected = x @ kernel + 2.0 * (x @ a) @ b
    if dora:
      magnitude = _matrix(flat[f"{at}/dora_magnitude"][layer], 1)[0]
      expected *= magnitude / np.linalg.norm(kernel + 2.0 * a @ b, axis=0)
    found = x @ _matrix(merged[f"{at}/kernel"][layer], inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - x @ kernel).max() > 0.01


def test_gradients_are_those_of_doras_paper(pair):
  """The length that columns are divided by counts as a constant."""
  lora = _lora(dora=True, targets=("encoder/*/up",))
  params = _moved(_params(pair(lora)))
  at = "encoder/layers/mlp/up"
  kernel, a, b, magnitude = (
    _flat(params)[f"{at}/{name}"]
    for name in ("kernel", "lora_a", "lora_b", "dora_magnitude")
  )
  weights = np.random.default_rng(0).normal(size=kernel.shape)

  def loss(tree):
    return jnp.sum(_flat(adapters.merge(tree, lora))[f"{at}/kernel"] * weights)

  def written_out(a, b, magnitude, constant):
    whole = kernel + 2.0 * jnp.einsum("ldr,lrf->ldf", a, b)
    norm = jnp.linalg.norm(whole, axis=1, keepdims=True)
    if constant is not None:
      norm = constant
    return jnp.sum(whole * magnitude[:, None] / norm * weights)

  found = _flat(jax.grad(loss)(params))
  whole = kernel + 2.0 * jnp.einsum("ldr,lrf->ldf", a, b)
  constant = jnp.linalg.norm(whole, axis=1, keepdims=True)
  of = (0, 1, 2)
  want = jax.grad(written_out, of)(a, b, magnitude, constant)
  other = jax.grad(written_out, of)(a, b, magnitude, None)
  for name, value in zip(adapters.LEAVES, want, strict=True):
    np.testing.assert_allclose(found[f"{at}/{name}"], value, atol=2e-5)
  assert np.abs(found[f"{at}/lora_a"] - other[0]).max() > 1e-3


def test_a_shared_kernels_adapter_serves_both_sides(pair):
  lora = _lora(targets=("encoder/*/query",))
  config = pair(lora, "all")
  params = _moved(_params(config))
  assert "lora_a" not in params["decoder"]["layers"]["cross_attention"]["query"]
  applied = expand(params, config)
  whole = expand(adapters.merge(params, lora), pair(None, "all"))
  kernels = [
    applied[side]["layers"]["self_attention"]["query"]
    for side in ("encoder", "decoder")
  ]
  assert kernels[0].keys() == {"kernel", "bias"}
  np.testing.assert_array_equal(kernels[0]["kernel"], kernels[1]["kernel"])
  stored = params["encoder"]["layers"]["self_attention"]["query"]["kernel"]
  assert not np.array_equal(kernels[0]["kernel"], stored)
  assert jax.tree.structure(applied) == jax.tree.structure(whole)


def test_matrix_a_is_drawn_as_pytorch_draws_a_linear_layer(pair):
  lora = _lora(rank=64, targets=("encoder/*/down",))
  a = _flat(_params(pair(lora)))["encoder/layers/mlp/down/lora_a"]
  # kaiming_uniform with a = sqrt(5): 1 / sqrt(inputs).
  bound = 12**-0.5
  assert np.abs(a).max() <= bound
  assert np.abs(a).max() > 0.98 * bound
  np.testing.assert_allclose(np.std(a), bound / 3**0.5, rtol=0.05)
  more = _params(pair(dataclasses.replace(lora, targets=ALL)))
  np.testing.assert_array_equal(
    a, _flat(more)["encoder/layers/mlp/down/lora_a"]
  )


def test_leaves_that_are_trained_whole_have_no_adapter(pair):
  lora = _lora(targets=("*/query",), unfrozen=("*/cross_attention*",))
  flat = _flat(_params(pair(lora)))
  assert "encoder/layers/self_attention/query/lora_a" in flat
  assert "decoder/layers/self_attention/query/lora_a" in flat
  assert "decoder/layers/cross_attention/query/lora_a" not in flat
  base = {path for path in flat if lora.is_base(path)}
  assert "decoder/layers/self_attention/query/kernel" in base
  rest = set(flat) - base
  assert {path.rpartition("/")[2] for path in rest} == {
    "kernel", "bias", "scale", "lora_a", "lora_b"
  }  # fmt: skip
  assert not lora.is_base("enc_to_dec_proj/kernel")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"targets": ("*/quer",)}, r"model.lora_targets: '\*/quer' matches noth"),
    (
      {"targets": ("decoder/*",)},
      r"model.lora_targets: 'decoder/\*' matches decoder/embeddings/norm, wh",
    ),
    (
      {"targets": ("*/cross_attention/query",), "unfrozen": ("*/cross_a*",)},
      "is trained whole by model.lora_unfrozen",
    ),
    ({"unfrozen": ("*/croos*",)}, r"model.lora_unfrozen: '\*/croos\*' match"),
  ],
)
def test_a_pattern_that_fits_nothing_is_refused(pair, changes, message):
  with pytest.raises(ValueError, match=message) as caught:
    _params(pair(_lora(**changes)))
  assert "\n" not in str(caught.value)
