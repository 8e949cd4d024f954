"""The decoding form holds the stored arrays, a layer at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.generation.decode_params import unstack
from encdec.model import param_shapes


def _leaves(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
    for path, leaf in leaves
  }


@pytest.fixture(scope="module")
def params(tiny_module):
  """Random numbers, with the paths and shapes of stored parameters."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: rng.random(leaf.shape, np.float32), param_shapes(tiny_module())
  )


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_layers_are_slices_and_a_cpus_kernels_transposed(
  tiny_module, params, platform
):
  module = tiny_module().clone(platform=platform)
  stored = _leaves(params)
  found = _leaves(jax.jit(lambda tree: unstack(tree, module))(params))
  transposed = 0
  for path, leaf in found.items():
    side, *parts = path.split("/")
    layer = int(parts.pop(1)) if parts[0] == "layers" else None
    turned = parts[-1] == "transposed"
    if turned:
      parts[-1] = "kernel"
      inputs = leaf.shape[1]
      leaf = leaf.T
    expected = stored["/".join((side, *parts))]
    expected = expected if layer is None else expected[layer]
    np.testing.assert_array_equal(leaf.reshape(expected.shape), expected)
    if turned:
      # Either one axis of inputs, or the heads of an attention's output.
      axes = 2 if parts[-2] == "out" else 1
      assert inputs == np.prod(expected.shape[:axes])
      transposed += 1
    # Keys and values of the source are of many rows.
    of_source = parts[-3:-1] in (
      ["cross_attention", "key"], ["cross_attention", "value"]
    )  # fmt: skip
    kernel = parts[-1] == "kernel" and side == "decoder"
    assert turned == (platform == "cpu" and kernel and not of_source), path
  # Two layers of four and two attention kernels and two others, and the head's.
  assert transposed == (17 if platform == "cpu" else 0)
  sizes = sum(leaf.size for leaf in stored.values())
  assert sum(leaf.size for leaf in found.values()) == sizes


def test_they_are_of_the_dtype_that_is_computed_in(tiny_module, params):
  module = tiny_module().clone(dtype=jnp.bfloat16)
  shapes = jax.eval_shape(lambda tree: unstack(tree, module), params)
  (dtype,) = {leaf.dtype for leaf in jax.tree.leaves(shapes)}
  assert dtype == jnp.bfloat16
