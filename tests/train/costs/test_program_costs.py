"""What a run's own step costs on virtual devices."""

import pytest

from encdec.model import param_shapes
from train.costs.memory import device_bytes
from train.setup.modules import preset_module


def test_data_parallelism_reduces_the_gradients_once(
  data_parallel, smoke_config
):
  found, _ = data_parallel
  costs = found.costs
  reduced = [one for one in costs.collectives if one.kind == "all-reduce"]
  assert {one.axes for one in costs.collectives} == {("data",)}
  shapes = param_shapes(preset_module(smoke_config()))
  poolers = [side.get("pooler", {}) for side in shapes.values()]
  gradients = device_bytes(shapes) - device_bytes(poolers)
  # A tied table is reduced as the head's and as the lookups'; beside gradients
  # there are a few numbers: sums of the loss and of counts.
  table = device_bytes(shapes["decoder"]["embeddings"]["tokens"])
  total = sum(one.bytes for one in reduced)
  assert gradients <= total <= gradients + table + 100


def test_full_sharding_splits_the_state(data_parallel, compile_smoke):
  whole = data_parallel[0].costs.memory
  found, _ = compile_smoke((1, 1, 8, 1))
  split = found.costs.memory
  # Norms, biases and small tables stay whole.
  assert split.parameters < 0.5 * whole.parameters
  assert split.optimizer == pytest.approx(2 * split.parameters, rel=0.01)
  kinds = {one.kind for one in found.costs.collectives}
  assert kinds & {"all-gather", "collective-permute"}


def test_the_state_is_donated(data_parallel):
  memory = data_parallel[0].costs.memory
  assert memory.donated >= memory.parameters + memory.optimizer
  # Metrics, and whatever lies between arrays.
  assert memory.outputs < 0.001 * memory.donated


def test_loops_have_their_lengths(data_parallel):
  costs = data_parallel[0].costs
  assert costs.loops and all(loop.trips for loop in costs.loops)
