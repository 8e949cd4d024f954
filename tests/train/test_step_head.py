"""The head's matrix is gathered once a step, however the loss is cut."""

import jax

from encdec.model import param_shapes
from encdec.sharding import DEFAULT_RULES, param_specs
from tests.train.sharded_cases import CASES, batch_of, mesh_of, module_of
from train import losses
from train.costs import hlo
from train.costs.collectives import collectives
from train.mesh import batch_sharding

CASE = CASES["off"]


def gathered(chunks: int) -> int:
  """Bytes that the loss and its gradient gather over 8 devices' shards."""
  mesh, module = mesh_of((1, 8, 1)), module_of(CASE)
  shapes = param_shapes(module)
  params = jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=place
    ),
    shapes,
    param_specs(shapes, DEFAULT_RULES, mesh),
  )
  place = batch_sharding(mesh, DEFAULT_RULES)
  batch = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
    for name, x in batch_of(CASE, 0).items()
  }

  def loss(params, batch):
    return losses.pair_loss(
      params,
      batch,
      module=module,
      dropout_key=None,
      config=losses.LossConfig(),
      chunks=chunks,
    )[0]

  with jax.set_mesh(mesh):
    compiled = jax.jit(jax.grad(loss)).lower(params, batch).compile()
  found = collectives(hlo.parse(compiled.as_text()), mesh)
  return sum(one.bytes for one in found if one.kind == "all-gather")


def test_chunks_of_the_loss_gather_no_more():
  assert 0 < gathered(3) <= gathered(1)
