"""The least time of a program: what binds it, over which links."""

import dataclasses
import itertools

import numpy as np
import pytest

from encdec.sharding import MESH_AXES
from train.costs.chips import CHIPS
from train.costs.collectives import Collective
from train.costs.roofline import roofline
from train.costs.work import Work


@dataclasses.dataclass(frozen=True)
class FakeChip:
  coords: tuple[int, int, int]


def grid(x: int, y: int, sizes, z: int = 1) -> np.ndarray:
  """Chips of a grid, as slice x data x fsdp x tensor."""
  places = itertools.product(range(x), range(y), range(z))
  chips = [FakeChip(place) for place in places]
  devices = np.empty(len(chips), object)
  devices[:] = chips
  return np.resize(devices, sizes)


NOTHING = Work(0.0, 0.0, (), ())
V5E = CHIPS["v5e"]


def seconds(one: Collective, mesh: np.ndarray):
  found = roofline(NOTHING, [one], V5E, mesh)
  return found.interconnect, found.network


def test_products_and_memory_have_their_peaks():
  found = roofline(
    Work(197e12, 819e9 / 2, (), ()), [], V5E, grid(1, 1, (1,) * 4)
  )
  assert (found.compute, found.memory) == (1.0, 0.5)
  # Memory is read while products are made.
  assert found.seconds == 1.0 and found.binding == "compute"
  slow = roofline(Work(0.0, 819e9, (), ()), [], V5E, grid(1, 1, (1,) * 4))
  assert slow.binding == "memory"


@pytest.mark.parametrize(
  ("x", "y", "sizes", "axes", "links"),
  [
    # Along a line of chips, a ring of 16, and both axes of a torus.
    (4, 4, (1, 4, 4, 1), ("fsdp",), 1),
    (16, 16, (1, 16, 16, 1), ("fsdp",), 2),
    (16, 16, (1, 16, 16, 1), ("data", "fsdp"), 4),
    (4, 4, (1, 16, 1, 1), ("data",), 2),
    # A part of a ring is a line.
    (16, 16, (1, 32, 8, 1), ("fsdp",), 1),
  ],
)
def test_a_torus_carries_on_every_axis(x, y, sizes, axes, links):
  mesh = grid(x, y, sizes)
  group = int(np.prod([mesh.shape[MESH_AXES.index(axis)] for axis in axes]))
  gather = Collective("all-gather", axes, group, 1, 10**9)
  inside, network = seconds(gather, mesh)
  expected = (group - 1) / group * 1e9 / (links * 50e9)
  assert inside == pytest.approx(expected) and network == 0
  reduced, _ = seconds(dataclasses.replace(gather, kind="all-reduce"), mesh)
  assert reduced == pytest.approx(2 * expected)


def test_between_slices_a_part_a_chip_goes_over_the_network():
  mesh = grid(4, 4, (2, 16, 1, 1))
  both = Collective("all-reduce", ("slice", "data"), 32, 1, 16 * 10**9)
  inside, network = seconds(both, mesh)
  # Reduced in the slice first: a sixteenth is left to each chip.
  assert network == pytest.approx(2 * 0.5 * 1e9 / 3.125e9)
  assert inside == pytest.approx(2 * 15 / 16 * 16e9 / (2 * 50e9))


@pytest.mark.parametrize(
  ("shape", "links"),
  [
    # Less than a cube of 4 x 4 x 4 has no rings; a cube has three.
    ((2, 2, 4), 3),
    ((4, 4, 4), 6),
    ((4, 4, 8), 6),
  ],
)
def test_a_torus_of_three_axes_is_one_of_whole_cubes(shape, links):
  x, y, z = shape
  chips = x * y * z
  mesh = grid(x, y, (1, chips, 1, 1), z)
  gather = Collective("all-gather", ("data",), chips, 1, 10**9)
  found = roofline(NOTHING, [gather], CHIPS["v5p"], mesh)
  expected = (chips - 1) / chips * 1e9 / (links * 100e9)
  assert found.interconnect == pytest.approx(expected)


@dataclasses.dataclass(frozen=True)
class FakeGpu:
  id: int
  slice_index: int


@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_between_hosts_gpus_use_the_network(axis):
  """However few of them: two hosts of four, `fsdp` in a host."""
  gpus = np.empty(8, object)
  gpus[:] = [FakeGpu(i, i // 4) for i in range(8)]
  mesh = gpus.reshape(1, 2, 4, 1)
  group = mesh.shape[MESH_AXES.index(axis)]
  gather = Collective("all-gather", (axis,), group, 1, 10**9)
  found = roofline(NOTHING, [gather], CHIPS["h100"], mesh)
  sent = (group - 1) / group * 1e9
  expected = (0.0, sent / 50e9) if axis == "data" else (sent / 450e9, 0.0)
  assert (found.interconnect, found.network) == pytest.approx(expected)


def test_hosts_of_a_topology_are_told_by_their_number():
  """Two hosts of eight; what is in one of them uses no network."""
  gpus = np.empty(16, object)
  gpus[:] = [FakeGpu(i, 0) for i in range(16)]
  mesh = gpus.reshape(1, 2, 8, 1)
  for axis, group, is_between in (("data", 2, True), ("fsdp", 8, False)):
    gather = Collective("all-gather", (axis,), group, 1, 10**9)
    found = roofline(NOTHING, [gather], CHIPS["h200"], mesh)
    assert (found.network > 0, found.interconnect > 0) == (
      is_between,
      not is_between,
    )


def test_a_group_that_is_a_part_of_its_axis_has_its_own_links():
  """As the phases into which a TPU's compiler cuts a long axis."""
  mesh = grid(16, 16, (1, 1, 256, 1))
  whole = Collective("all-gather", ("fsdp",), 256, 1, 10**9)
  inside, _ = seconds(whole, mesh)
  assert inside == pytest.approx(255 / 256 * 1e9 / (4 * 50e9))
  # A row of the grid is a ring, and a part of it a line.
  for members, links in ((range(16), 2), (range(4), 1)):
    part = dataclasses.replace(
      whole, group=len(members), members=tuple(members)
    )
    inside, _ = seconds(part, mesh)
    share = (len(members) - 1) / len(members)
    assert inside == pytest.approx(share * 1e9 / (links * 50e9))
