"""The mesh: sizes that fit, sizes that do not, and slices."""

import dataclasses

import jax
import pytest
from jax.sharding import AxisType, PartitionSpec

from encdec.sharding import DEFAULT_RULES, MESH_AXES, Rules
from train.mesh import MeshConfig, batch_sharding, check_batch_size, make_mesh


def test_axes_are_four_and_auto():
  mesh = make_mesh(MeshConfig(1, 2, 2, 2))
  assert mesh.axis_names == MESH_AXES
  assert set(mesh.axis_types) == {AxisType.Auto}
  assert tuple(mesh.shape.values()) == (1, 2, 2, 2)
  assert set(mesh.devices.flat) == set(jax.devices())


def test_minus_one_takes_what_is_left():
  assert make_mesh(MeshConfig(1, -1, 1, 4)).shape["data"] == 2
  one = make_mesh(MeshConfig(), jax.devices()[:1])
  assert one.size == 1


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ((1, 3, 1, 1), r"mesh.data=3.* does not fit 8 devices.*1, 2, 4, 8"),
    ((1, -1, 3, 1), r"mesh.fsdp=3.* does not fit 8 devices"),
    ((1, 2, 2, 1), "must multiply to 8"),
  ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
  with pytest.raises(ValueError, match=message):
    make_mesh(MeshConfig(*sizes))


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ((1, -1, -1, 1), "mesh.data and mesh.fsdp are both -1"),
    ((1, 0, 1, 1), "mesh.data=0 must be a positive integer"),
  ],
)
def test_wrong_sizes_are_refused_by_name(sizes, message):
  with pytest.raises(ValueError, match=message):
    MeshConfig(*sizes)


@dataclasses.dataclass(frozen=True)
class FakeDevice:
  """As much of a device of a slice as laying out a mesh needs."""

  id: int
  slice_index: int
  coords: tuple[int, int, int]
  core_on_chip: int = 0
  process_index: int = 0
  platform: str = "tpu"
  device_kind: str = "fake"


def test_the_slice_axis_alone_crosses_slices():
  # Interleaved, as devices of two slices may be listed.
  devices = [FakeDevice(n, n % 2, (n // 2 % 2, n // 4, 0)) for n in range(8)]
  mesh = make_mesh(MeshConfig(2, 2, 1, 2), devices)
  for index in range(2):
    assert {d.slice_index for d in mesh.devices[index].flat} == {index}
  with pytest.raises(ValueError, match=r"mesh.slice=1, .*set mesh.slice=2"):
    make_mesh(MeshConfig(1, 4, 1, 2), devices)


@dataclasses.dataclass(frozen=True)
class OneSlice:
  """A device of a topology of one slice: it has no `slice_index`."""

  id: int
  coords: tuple[int, int, int]
  core_on_chip: int = 0
  process_index: int = 0
  platform: str = "tpu"
  device_kind: str = "TPU v5 lite"


def test_devices_of_one_slice_need_no_index_and_split_their_axes():
  devices = [OneSlice(n, (n % 4, n // 4, 0)) for n in range(16)]
  mesh = make_mesh(MeshConfig(1, -1, 1, 2), devices)
  assert set(mesh.devices.flat) == set(devices)
  for pair in mesh.devices.reshape(8, 2):
    (x, y, _), (x2, y2, _) = (device.coords for device in pair)
    assert abs(x - x2) + abs(y - y2) == 1, "tensor pairs should be neighbours"
  with pytest.raises(ValueError, match=r"15 devices .* use all chips"):
    make_mesh(MeshConfig(1, 15, 1, 1), devices[1:])


def test_a_batch_lies_over_three_axes():
  mesh = make_mesh(MeshConfig(1, 2, 2, 2))
  sharding = batch_sharding(mesh, DEFAULT_RULES)
  assert sharding.spec == PartitionSpec(("slice", "data", "fsdp"))
  assert sharding.shard_shape((8, 5)) == (2, 5)
  rules = Rules.from_mapping(dict(DEFAULT_RULES.table) | {"batch": ()})
  assert batch_sharding(mesh, rules).is_fully_replicated


def test_a_batch_that_does_not_divide_is_refused_with_the_next_that_does():
  mesh = make_mesh(MeshConfig(1, 2, 2, 2))
  check_batch_size("train.batch_size", 24, 3, mesh, DEFAULT_RULES)
  with pytest.raises(
    ValueError,
    match=r"train.batch_size=16 must be a multiple of 12 .*"
    r"accumulate_steps=3 x 4 shards.*the next is 24",
  ):
    check_batch_size("train.batch_size", 16, 3, mesh, DEFAULT_RULES)
