"""Kernels seen as matrices, and where their statistics lie."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from train.optim import matrices

QUERY = "encoder/layers/self_attention/query/kernel"
OUT = "encoder/layers/self_attention/out/kernel"
TABLE = "decoder/embeddings/tokens/embedding"


@pytest.mark.parametrize(
  ("path", "axes"),
  [
    (QUERY, ((0,), (1,), (2, 3))),
    (QUERY.replace("query", "value"), ((0,), (1,), (2, 3))),
    (OUT, ((0,), (1, 2), (3,))),
    ("decoder/layers/mlp/up/kernel", ((0,), (1,), (2,))),
    (QUERY.replace("kernel", "bias"), ((0,), (1, 2))),
    ("decoder/layers/mlp_norm/scale", ((0,), (1,))),
    (TABLE, ((0,), (1,))),
    ("decoder/head/bias", ((0,),)),
  ],
)
def test_heads_and_their_width_are_one_axis(path, axes):
  assert matrices.matrix_axes(path) == axes
  assert matrices.is_stacked(path) == ("/layers/" in path)


def test_statistics_lie_as_rows_and_columns_do():
  def spec(name, path, shape, param_shape, *axes):
    return matrices.statistic_spec(
      f"0/{name}/{path}", path, shape, param_shape, PartitionSpec(*axes)
    )

  query = (QUERY, (3, 8, 4, 5), None, "fsdp", "tensor", None)
  place = lambda shape, name="v_row", of=query: spec(
    name, of[0], shape, of[1], *of[2:]
  )
  assert place((3, 8)) == PartitionSpec(None, "fsdp")
  assert place((3, 20)) == PartitionSpec(None, "tensor")
  assert place((3, 8, 20)) == PartitionSpec(None, "fsdp", "tensor")
  assert place((3, 1)) == PartitionSpec(None, None)
  out = (OUT, (3, 4, 5, 8), None, "tensor", None, "fsdp")
  assert place((3, 20), of=out) == PartitionSpec(None, "tensor")
  assert place((3, 8), of=out) == PartitionSpec(None, "fsdp")
  square = (QUERY, (3, 20, 4, 5), None, "fsdp", "tensor", None)
  assert place((3, 20), of=square) == PartitionSpec(None, "fsdp")
  assert place((3, 20), "v_col", square) == PartitionSpec(None, "tensor")
  table = (TABLE, (16, 6), ("fsdp", "tensor"), None)
  assert place((16,), of=table) == PartitionSpec(("fsdp", "tensor"))
  assert place((6,), of=table) == PartitionSpec(None)
  # A width that is split is not a part of the axis that it is merged into.
  wide = (QUERY, (3, 8, 4, 5), None, None, "fsdp", "tensor")
  assert place((3, 20), of=wide) == PartitionSpec(None, None)
  for unknown in ((3, 7), (8, 3), (20,), (3, 8, 4), (3, 20, 8)):
    assert place(unknown) is None


def test_every_matrix_has_its_own_norm(seed):
  rng = np.random.default_rng(seed)
  # Sides of unequal depth: one axis of layers does not serve both.
  params = {
    "encoder": {"layers": {"self_attention": {"query": {}}}},
    "decoder": {"layers": {"mlp": {"up": {}}}, "embeddings": {"tokens": {}}},
  }
  query, up = rng.normal(size=(2, 6, 3, 2)), rng.normal(size=(3, 6, 4))
  table = rng.normal(size=(9, 6))
  params["encoder"]["layers"]["self_attention"]["query"]["kernel"] = query
  params["decoder"]["layers"]["mlp"]["up"]["kernel"] = up
  params["decoder"]["embeddings"]["tokens"]["embedding"] = table
  params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
  tx = matrices.per_matrix(optax.scale_by_param_block_rms())
  ones = jax.tree.map(jnp.ones_like, params)
  found, _ = tx.update(ones, tx.init(params), params)
  rms = lambda x: np.sqrt(np.mean(np.square(x)))
  tokens = np.asarray(found["decoder"]["embeddings"]["tokens"]["embedding"])
  np.testing.assert_allclose(tokens, np.full_like(tokens, rms(table)), 1e-5)
  queries = found["encoder"]["layers"]["self_attention"]["query"]["kernel"]
  ups = found["decoder"]["layers"]["mlp"]["up"]["kernel"]
  for value, stack in ((query, queries), (up, ups)):
    stack = np.asarray(stack)
    for layer, one in zip(value, stack, strict=True):
      np.testing.assert_allclose(one, np.full_like(one, rms(layer)), 1e-5)
    assert abs(stack[0].flat[0] / stack[1].flat[0] - 1) > 1e-4
