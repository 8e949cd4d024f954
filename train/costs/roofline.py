"""The least time that a program takes: what each part of a chip allows."""

import dataclasses
import math
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
      axes = tuple(axis for axis in one.axes if axis != "slice")
      interconnect += one.sent / _link_bandwidth(axes, chip, devices)
  return Roofline(
    compute=work.flops / chip.flops,
    memory=work.bytes / chip.bandwidth,
    interconnect=interconnect,
    network=network,
  )


def _link_bandwidth(
  axes: Sequence[str], chip: Chip, devices: np.ndarray
) -> float:
  """Bytes a second that a chip sends to others along these axes of the mesh.

  On a torus each of its axes that they cover carries traffic, in both
  directions where it is a ring; along a line a chip at its end has one link.
  """
  numbers = [MESH_AXES.index(axis) for axis in axes]
  if not chip.ring:
    group = math.prod([devices.shape[n] for n in numbers])
    return chip.link if group <= chip.host_devices else chip.network
  first = tuple(slice(None) if n in numbers else 0 for n in range(devices.ndim))
  coords = _coords(devices[first].reshape(-1))
  whole = _coords(devices[0].reshape(-1))
  links = 0
  for along, everywhere in zip(coords.T, whole.T, strict=True):
    size, side = len(np.unique(along)), len(np.unique(everywhere))
    if size > 1:
      is_ring = size == side and side % chip.ring == 0
      links += 2 if is_ring else 1
  return max(links, 1) * chip.link


def _coords(devices: np.ndarray) -> np.ndarray:
  return np.asarray([device.coords for device in devices])
