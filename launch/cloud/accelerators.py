"""Accelerators of Google Cloud by their short names: labels, chips of a host.

From "Plan TPUs in GKE", "TPU software versions" and "GPU machine types" of
Google Cloud's documentation, and AI-Hypercomputer/xpk's table of machines.
"""

import dataclasses
import math
import re

from launch.program import Refusal


@dataclasses.dataclass(frozen=True)
class Tpu:
  """A generation of TPUs as node pools have it.

  Attributes:
    label: of the nodes, cloud.google.com/gke-tpu-accelerator.
    sides: of a topology: 2 or 3.
    host_chips: of a machine of a slice of several.
    alone: chips of slices that are one machine.
    most: chips of the largest slice.
    example: a topology.
  """

  label: str
  sides: int
  host_chips: int
  alone: tuple[int, ...]
  most: int
  example: str


TPUS = {
  "v4": Tpu("tpu-v4-podslice", 3, 4, (4,), 4096, "2x2x2"),
  "v5e": Tpu("tpu-v5-lite-podslice", 2, 4, (1, 4, 8), 256, "4x4"),
  "v5p": Tpu("tpu-v5p-slice", 3, 4, (4,), 6144, "2x2x4"),
  "v6e": Tpu("tpu-v6e-slice", 2, 4, (1, 4, 8), 256, "4x4"),
  "tpu7x": Tpu("tpu7x", 3, 4, (4,), 9216, "2x2x2"),
}
# By the number of sides, the shapes that there are, in words.
_SHAPES = {
  2: "1x1, 2x2, 2x4, 4x4, 4x8 and so on, doubled in turn",
  3: "2x2x1, 2x2x2, 2x2x4, 2x4x4, or multiples of 4 that ascend",
}
# Labels of the nodes, cloud.google.com/gke-accelerator, and GPUs of a machine.
GPUS = {
  "a100": ("nvidia-tesla-a100", 16),
  "a100-80gb": ("nvidia-a100-80gb", 8),
  "l4": ("nvidia-l4", 8),
  "h100": ("nvidia-h100-80gb", 8),
  "h100-mega": ("nvidia-h100-mega-80gb", 8),
  "h200": ("nvidia-h200-141gb", 8),
  "b200": ("nvidia-b200", 8),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Machines that are joined: a slice of a TPU, or hosts with GPUs.

  Attributes:
    resource: what a pod asks for.
    selector: labels of the nodes.
    hosts: machines.
    host_chips: accelerators of one of them.
  """

  resource: str
  selector: dict[str, str]
  hosts: int
  host_chips: int


def tpu_slice(topology: str) -> Slice:
  """The machines of a topology such as "v5e:4x4".

  Raises:
    Refusal: there is no such topology.
  """
  kind, _, shape = topology.partition(":")
  if kind not in TPUS:
    known = ", ".join(f"{k}:{tpu.example}" for k, tpu in TPUS.items())
    raise Refusal(
      f"--topology={topology}: the chip {kind!r} is not known; those that are: "
      f"{known}"
    )
  tpu = TPUS[kind]
  if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3})*", shape) or (
    shape.count("x") + 1 != tpu.sides
  ):
    raise Refusal(
      f"--topology={topology}: a slice of {kind} has {tpu.sides} sides, as "
      f"{kind}:{tpu.example} has"
    )
  sides = [int(side) for side in shape.split("x")]
  chips = math.prod(sides)
  if chips > tpu.most or not _is_slice(sides):
    raise Refusal(
      f"--topology={topology}: there is no such slice of {kind}, whose sides "
      f"are {_SHAPES[tpu.sides]}, with at most {tpu.most} chips"
    )
  of_host = chips if chips in tpu.alone else tpu.host_chips
  labels = {
    "cloud.google.com/gke-tpu-accelerator": tpu.label,
    "cloud.google.com/gke-tpu-topology": shape,
  }
  return Slice("google.com/tpu", labels, chips // of_host, of_host)


def _is_slice(sides: list[int]) -> bool:
  if len(sides) == 2:
    a, b = sides
    return a & (a - 1) == 0 and b in (a, 2 * a) and [a, b] != [1, 2]
  if math.prod(sides) < 64:
    return sides in ([2, 2, 1], [2, 2, 2], [2, 2, 4], [2, 4, 4])
  return sides == sorted(sides) and not any(side % 4 for side in sides)


def gpu_hosts(gpu: str, nodes: int) -> Slice:
  """Machines with GPUs, such as "h100:8".

  Raises:
    Refusal: there are no such machines.
  """
  kind, _, count = gpu.partition(":")
  if kind not in GPUS:
    raise Refusal(
      f"--gpu={gpu}: the GPU {kind!r} is not known; those that are: "
      f"{', '.join(GPUS)}, each with a number, as in --gpu=h100:8"
    )
  label, most = GPUS[kind]
  if not count.isdecimal() or not 1 <= int(count) <= most:
    raise Refusal(
      f"--gpu={gpu}: write how many GPUs a machine has, 1 to {most}, as in "
      f"--gpu={kind}:{most}"
    )
  labels = {"cloud.google.com/gke-accelerator": label}
  return Slice("nvidia.com/gpu", labels, nodes, int(count))


# What a TPU VM starts with, by the first part of an accelerator type.
RUNTIMES = {
  "v4": "tpu-ubuntu2204-base",
  "v5litepod": "v2-alpha-tpuv5-lite",
  "v5p": "v2-alpha-tpuv5",
  "v6e": "v2-alpha-tpuv6e",
}


def runtime(accelerator_type: str) -> str:
  """The runtime version of a TPU VM such as "v5litepod-16".

  Raises:
    Refusal: there is no such type.
  """
  kind, _, number = accelerator_type.partition("-")
  if kind not in RUNTIMES or not number.isdecimal():
    raise Refusal(
      f"--accelerator_type={accelerator_type}: write one such as "
      f"{', '.join(f'{kind}-16' for kind in RUNTIMES)}; of another kind pass "
      "--version too"
    )
  return RUNTIMES[kind]
