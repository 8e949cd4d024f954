"""The least time that a program takes: what each part of a chip allows."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from encdec.sharding import MESH_AXES
from train.costs.chips import Chip
from train.costs.collectives import Collective
from train.costs.work import Work


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Seconds of one run of a program, by what they are spent on.

  Attributes:
    compute: matrix products at the chip's peak.
    memory: bytes of main memory at its bandwidth.
    interconnect: collectives in a slice, over the links that they can use.
    network: collectives between slices or hosts.
  """

  compute: float
  memory: float
  interconnect: float
  network: float

  @property
  def seconds(self) -> float:
    """Products hide memory; no communication is hidden."""
    return max(self.compute, self.memory) + self.interconnect + self.network

  @property
  def binding(self) -> str:
    """The longest part."""
    parts = dataclasses.asdict(self)
    return max(parts, key=lambda part: parts[part])


def roofline(
  work: Work,
  collectives: Sequence[Collective],
  chip: Chip,
  devices: np.ndarray,
) -> Roofline:
  """Williams et al. 2009, with the links between chips as further roofs.

  Args:
    devices: of the mesh, an axis for each of its axes.
  """
  interconnect = network = 0.0
  for one in collectives:
    slices = len(devices) if "slice" in one.axes else 1
    if slices > 1:
      # Reduced or gathered in the slice, and between slices a part a device.
      inside = max(1, one.group // slices)
      between = dataclasses.replace(
        one, group=slices, bytes=one.bytes // inside
      )
      network += between.sent / chip.network
      one = dataclasses.replace(one, group=inside)
    if one.group > 1:
      if one.members and slices == 1:
        members = devices.reshape(-1)[list(one.members)]
      else:
        axes = [axis for axis in one.axes if axis != "slice"]
        members = _members(axes, devices)
      if _is_between_hosts(members, chip):
        network += one.sent / chip.network
      else:
        interconnect += one.sent / _link_bandwidth(members, chip, devices)
  return Roofline(
    compute=work.flops / chip.flops,
    memory=work.bytes / chip.bandwidth,
    interconnect=interconnect,
    network=network,
  )


def _members(axes: Sequence[str], devices: np.ndarray) -> np.ndarray:
  """The devices of one group along these axes of the mesh."""
  numbers = [MESH_AXES.index(axis) for axis in axes]
  first = tuple(slice(None) if n in numbers else 0 for n in range(devices.ndim))
  return devices[first].reshape(-1)


def _is_between_hosts(members: np.ndarray, chip: Chip) -> bool:
  """Whether GPUs are on several hosts: a torus of TPUs joins those itself."""
  # An index tells the hosts of real devices apart; a topology's are numbered
  # host by host.
  hosts = {
    (getattr(device, "slice_index", 0), device.id // chip.host_devices)
    for device in members
    if not chip.ring
  }
  return len(hosts) > 1


def _link_bandwidth(
  members: np.ndarray, chip: Chip, devices: np.ndarray
) -> float:
  """Bytes a second that a chip sends to the other members of its group.

  On a torus each of its axes that they cover carries traffic, in both
  directions where it is a ring; along a line a chip at its end has one link.
  """
  if not chip.ring:
    return chip.link
  group, whole = _coords(members), _coords(devices[0].reshape(-1))
  sides = [len(np.unique(along)) for along in whole.T]
  closed = [side % chip.ring == 0 for side in sides]
  if chip.links == 6 and not all(closed):
    # A torus of three axes is one of whole cubes; less than a cube is a grid.
    closed = [False] * len(sides)
  links = 0
  for along, side, is_closed in zip(group.T, sides, closed, strict=True):
    size = len(np.unique(along))
    if size > 1:
      links += 2 if is_closed and size == side else 1
  return max(links, 1) * chip.link


def _coords(devices: np.ndarray) -> np.ndarray:
  return np.asarray([device.coords for device in devices])
