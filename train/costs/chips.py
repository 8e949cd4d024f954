"""The figures of accelerators: peaks, memory, bandwidths, with their source.

Those of TPUs are of the "System architecture" pages of Cloud TPU's
documentation, those of GPUs of NVIDIA's data sheets; all are per JAX device.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

_GIB = 2.0**30

# Dense bf16 FLOP/s, from the vendors' data sheets. Of one core of a TPU, by its
# `device_kind`: a JAX device is a core of v2, v3 and 7x, and a chip of v4 and
# v5p, whose two cores work as one unless the runtime is told otherwise.
_TPU_CORES = {
  "TPU v2": 23e12,
  "TPU v3": 61.5e12,
  "TPU v4": 137.5e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 229.5e12,
  "TPU v5p": 229.5e12,
  "TPU v6 lite": 918e12,
  "TPU v6e": 918e12,
  "TPU7x": 1153.5e12,
  "TPU v7x": 1153.5e12,
}
_TWO_CORES = ("TPU v4", "TPU v5", "TPU v5p")
# Of a GPU, by the first words of its `device_kind`; memory and socket follow.
# Those before Ampere have no bf16.
_GPUS = {
  "NVIDIA A100": 312e12,
  "NVIDIA A800": 312e12,
  "NVIDIA A10": 125e12,
  "NVIDIA A10G": 70e12,
  "NVIDIA A30": 165e12,
  "NVIDIA A40": 149.7e12,
  "NVIDIA RTX A6000": 154.8e12,
  "NVIDIA L4": 121e12,
  "NVIDIA L20": 119.5e12,
  "NVIDIA L40": 181e12,
  "NVIDIA L40S": 362e12,
  "NVIDIA H20": 148e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H100 NVL": 835e12,
  "NVIDIA H800": 989e12,
  "NVIDIA H800 PCIe": 756e12,
  "NVIDIA H200": 989e12,
  "NVIDIA H200 NVL": 835e12,
  "NVIDIA GH200": 989e12,
  "NVIDIA B200": 2250e12,
  "NVIDIA GB200": 2500e12,
  "NVIDIA B300": 2250e12,
  "NVIDIA GB300": 2500e12,
}
# A part of a GPU that is shared: "... MIG 1g.10gb", "NVIDIA A40-8Q".
_PART = re.compile(r" MIG |-\d+[ABCQ]$")


@dataclasses.dataclass(frozen=True)
class Chip:
  """Peak, memory, bandwidths and links of one JAX device.

  Attributes:
    flops: dense bf16 FLOP/s.
    memory: of its main memory, in bytes.
    bandwidth: of its main memory, in bytes a second.
    link: bytes a second that one link carries in one direction.
    links: of a GPU, to a switch; of a TPU, two along each axis of its torus.
    ring: axes of a torus of so many chips, or a multiple, are rings.
    network: bytes a second to another slice or host, a device's share.
    host_devices: devices of a host, or of a domain of fast links.
  """

  flops: float
  memory: float
  bandwidth: float
  link: float
  links: int
  ring: int
  network: float
  host_devices: int


# By kind of a topology's name, as in "v5e:4x4". A network is a host's share of
# a slice's or pod's "data center network bandwidth"; v4's is not published and
# is taken to be v5p's.
CHIPS = {
  "v4": Chip(275e12, 32 * _GIB, 1.2e12, 50e9, 6, 4, 6.25e9, 4),
  "v5e": Chip(197e12, 16 * _GIB, 819e9, 50e9, 4, 16, 3.125e9, 8),
  "v5p": Chip(459e12, 95 * _GIB, 2765e9, 100e9, 6, 4, 6.25e9, 4),
  "v6e": Chip(918e12, 32 * _GIB, 1638e9, 100e9, 4, 16, 12.5e9, 8),
  # Half a chip: each of its two cores is a device.
  "tpu7x": Chip(1153.5e12, 96 * _GIB, 3690e9, 50e9, 6, 4, 6.25e9, 8),
  "h100": Chip(989e12, 80e9, 3.35e12, 450e9, 1, 0, 50e9, 8),
  "h200": Chip(989e12, 141e9, 4.8e12, 450e9, 1, 0, 50e9, 8),
}
_KINDS = {
  "TPU v4": "v4",
  "TPU v5 lite": "v5e",
  "TPU v5e": "v5e",
  "TPU v5": "v5p",
  "TPU v5p": "v5p",
  "TPU v6 lite": "v6e",
  "TPU v6e": "v6e",
  "TPU7x": "tpu7x",
  "TPU v7x": "tpu7x",
  "NVIDIA H100 80GB HBM3": "h100",
  "NVIDIA H200": "h200",
}


def chip_of(device: Any) -> Chip | None:
  """The figures of a JAX device; None where they are not known here."""
  kind = _KINDS.get(device.device_kind)
  cores = getattr(device, "num_cores", None)
  if kind in ("v4", "v5p") and cores == 1:
    return None  # A core of a chip whose figures are those of both.
  return CHIPS[kind] if kind else None


def peak_flops(device_kind: str, num_cores: int | None = None) -> float | None:
  """Dense bf16 FLOP/s of a JAX device; None where it is not known.

  Args:
    num_cores: of the device, where it says so: a TPU does.
  """
  if device_kind in _TPU_CORES:
    cores = num_cores or (2 if device_kind in _TWO_CORES else 1)
    return cores * _TPU_CORES[device_kind]
  if _PART.search(device_kind):
    return None
  known = [
    name
    for name in _GPUS
    if re.match(re.escape(name) + r"(?![0-9A-Za-z])", device_kind)
  ]
  return _GPUS[max(known, key=len)] if known else None


def total_peak_flops(devices: Sequence[Any]) -> float | None:
  """Dense bf16 FLOP/s of some JAX devices; None where one's is not known."""
  peaks = [
    peak_flops(device.device_kind, getattr(device, "num_cores", None))
    for device in devices
  ]
  known = [peak for peak in peaks if peak is not None]
  return sum(known) if len(known) == len(peaks) else None
