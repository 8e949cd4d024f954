"""The least time of a program: what binds it, over which links."""

import dataclasses

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


def grid(x: int, y: int, sizes) -> np.ndarray:
  """Chips of a grid, as slice x data x fsdp x tensor."""
  chips = [FakeChip((i, j, 0)) for i in range(x) for j in range(y)]
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
