"""Rows come from the sharding; global arrays hold them where it says."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from data import device

AXES = ("data", "tensor")


def _sharding(shape, spec, devices=None) -> NamedSharding:
  mesh = jax.make_mesh(
    shape, AXES, (jax.sharding.AxisType.Auto,) * 2, devices=devices
  )
  return NamedSharding(mesh, spec)


@pytest.mark.parametrize(
  "spec",
  [
    PartitionSpec("data"),
    PartitionSpec(("data", "tensor")),
    PartitionSpec("data", None),
    PartitionSpec(),
  ],
)
def test_global_arrays_hold_the_batch(spec):
  sharding = _sharding((4, 2), spec)
  rows = device.local_rows(sharding, 16)
  assert rows.tolist() == list(range(16))
  batch = {
    "tokens": np.arange(48, dtype=np.int32).reshape(16, 3),
    "weights": np.ones((16, 5), np.float32),
  }
  made = device.to_device(batch, rows, sharding, 16)
  for name, array in batch.items():
    assert made[name].sharding.is_equivalent_to(sharding, 2)
    np.testing.assert_array_equal(made[name], array)


def test_rows_follow_the_devices_of_the_host(monkeypatch):
  # The order of devices in the mesh is not that of their numbers.
  devices = [jax.devices()[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)]
  inner = _sharding((8, 1), PartitionSpec("data"), devices)
  indices = dict(inner.addressable_devices_indices_map((16, 1)))
  mine = {d: i for d, i in indices.items() if d.id < 4}
  monkeypatch.setattr(
    NamedSharding, "addressable_devices_indices_map", lambda *_: mine
  )
  rows = device.local_rows(inner, 16)
  assert rows.tolist() == [0, 1, 4, 5, 8, 9, 12, 13]


def test_batch_that_does_not_divide_is_refused():
  sharding = _sharding((8, 1), PartitionSpec("data"))
  with pytest.raises(ValueError, match=r"divisible|divide"):
    device.local_rows(sharding, 12)
