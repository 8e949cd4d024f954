"""A run's step is compiled for GPUs that are not here, and counted."""

import importlib.util

import jax
import pytest

from train.costs import topology
from train.setup.modules import preset_module

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec("jax_cuda12_plugin") is None,
  reason="CUDA's compiler is not installed: pip install 'encdec[aot-cuda]'",
)
# What the products of a step are is known exactly without recomputation.
PLAIN = {"model.remat": "none", "train.loss_chunks": 1}


def step_flops(config) -> int:
  """Of a step's products by the model's definition: two a multiply-add."""
  module = preset_module(config)
  side, rows = module.config.encoder, config.train.batch_size
  source = config.data.max_source_length
  target = config.data.max_target_length
  width = side.width
  layer = 4 * width**2 + 2 * width * side.mlp_width
  encoder = 2 * source * layer + 4 * source**2 * width
  decoder = 2 * target * layer + 4 * target**2 * width
  cross = 4 * (target + source) * width**2 + 4 * target * source * width
  head = 2 * target * width * module.config.decoder_vocab_rows
  # Backward, a product is two.
  return 3 * rows * (side.num_layers * (encoder + decoder + cross) + head)


def test_products_are_those_of_the_arithmetic(compile_smoke, smoke_config):
  found, _ = compile_smoke(
    (1, 1, 1, 1), devices=topology.devices("h200:1"), **PLAIN
  )
  here, _ = compile_smoke((1, 1, 1, 1), devices=jax.devices()[:1], **PLAIN)
  expected = step_flops(smoke_config())
  assert found.costs.work.flops == expected
  assert here.costs.work.flops == expected
  assert found.costs.work.kernels == ()


def test_all_of_the_state_is_donated_and_reduced_once(compile_smoke):
  found, mesh = compile_smoke(
    (1, 8, 1, 1), devices=topology.devices("h200:8"), **PLAIN
  )
  costs = found.costs
  assert mesh.devices.flat[0].device_kind == "NVIDIA H200"
  state = costs.memory.parameters + costs.memory.optimizer
  assert costs.memory.donated == pytest.approx(state, rel=0.01)
  reduced = [one for one in costs.collectives if one.kind == "all-reduce"]
  assert {one.axes for one in reduced} == {("data",)}
  assert sum(one.bytes for one in reduced) == pytest.approx(
    costs.memory.parameters, rel=0.1
  )
  assert all(loop.trips for loop in costs.loops)
  assert costs.roofline.interconnect > 0 and costs.roofline.network == 0
