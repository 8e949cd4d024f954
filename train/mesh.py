"""The mesh: devices as slice x data x fsdp x tensor."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from encdec import platform
from encdec.sharding import MESH_AXES, Rules
from train.config import Config


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Sizes of the mesh's axes; one of them may be -1: whatever is left."""

  slice: int = 1
  data: int = -1
  fsdp: int = 1
  tensor: int = 1

  def __post_init__(self):
    for axis, size in zip(MESH_AXES, self.sizes, strict=True):
      if size != -1 and size < 1:
        raise ValueError(
          f"mesh.{axis}={size} must be a positive integer, or -1 for whatever "
          "is left"
        )
    left = [a for a, n in zip(MESH_AXES, self.sizes, strict=True) if n == -1]
    if len(left) > 1:
      raise ValueError(
        f"mesh.{left[0]} and mesh.{left[1]} are both -1; only one axis can "
        "take whatever is left"
      )

  @property
  def sizes(self) -> tuple[int, int, int, int]:
    return (self.slice, self.data, self.fsdp, self.tensor)


def sharding_rules(config: Config) -> Rules:
  """Logical axis -> axes of the mesh: the section `sharding`."""
  return Rules.from_mapping(config.sharding.to_dict())


def platform_of(mesh: Mesh) -> str:
  """What programs on `mesh` are compiled for: "cpu", "gpu" or "tpu"."""
  return platform.named(mesh.devices.flat[0].platform)


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
  """The mesh over `devices` (all of them by default), every axis Auto.

  Raises ValueError, with the legal sizes, where the sizes do not multiply to
  the number of devices or `mesh.slice` splits a slice of TPUs; and where TPUs
  are not whole chips that fill a box.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = _fill(config, len(devices))
  groups: dict[int, list[Any]] = {}
  for device in devices:
    # On GPU and CPU the index tells hosts apart, which any axis may cross. TPUs
    # of a topology of one slice have none.
    index = 0
    if device.platform == "tpu":
      index = getattr(device, "slice_index", 0)
    groups.setdefault(index, []).append(device)
  if len(groups) == 1:
    array = _lay_out(sizes, devices)
  elif sizes[0] % len(groups):
    raise ValueError(
      f"mesh.slice={sizes[0]}, but the devices are {len(groups)} slices joined "
      f"by a slow network; set mesh.slice={len(groups)}"
    )
  else:
    inner = (sizes[0] // len(groups), *sizes[1:])
    array = np.concatenate(
      [_lay_out(inner, groups[index]) for index in sorted(groups)]
    )
  return Mesh(array, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _lay_out(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
  """Devices of one slice such that the last axes have the nearest ones."""
  try:
    # An axis of the mesh may be shorter than each of the torus: tensor=2 on
    # 4 x 4 chips.
    return mesh_utils.create_device_mesh(
      sizes, devices, allow_split_physical_axes=True
    )
  except (AssertionError, NotImplementedError) as error:
    reason = (str(error).splitlines() or ["no reason is given"])[0][:200]
    raise ValueError(
      f"JAX has no mesh for {len(devices)} devices of kind "
      f"{devices[0].device_kind!r} ({reason}): use all chips of a slice, each "
      "of them one device"
    ) from error


def _fill(config: MeshConfig, devices: int) -> tuple[int, ...]:
  known = math.prod(size for size in config.sizes if size != -1)
  if -1 in config.sizes and devices % known == 0:
    return tuple(devices // known if n == -1 else n for n in config.sizes)
  if known == devices:
    return config.sizes
  sizes = zip(MESH_AXES, config.sizes, strict=True)
  shape = ", ".join(f"mesh.{axis}={size}" for axis, size in sizes)
  legal = ", ".join(str(n) for n in range(1, devices + 1) if devices % n == 0)
  raise ValueError(
    f"{shape} does not fit {devices} devices: the sizes must multiply to "
    f"{devices}, so each is one of {legal}, or one of them -1"
  )


def batch_sharding(mesh: Mesh, rules: Rules) -> NamedSharding:
  """Of every array `[B, ...]` of a batch: rows split, the rest whole."""
  return NamedSharding(mesh, PartitionSpec(rules.mesh_axes("batch") or None))


def replicated(mesh: Mesh) -> NamedSharding:
  """Whole on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_shards(mesh: Mesh, rules: Rules) -> int:
  """How many parts the rows of a batch are split into."""
  return math.prod(mesh.shape[axis] for axis in rules.mesh_axes("batch"))


def check_batch_size(
  name: str, rows: int, accumulate_steps: int, mesh: Mesh, rules: Rules
) -> None:
  """Raises ValueError unless `rows` make equal microbatches on every shard.

  `name` is the configuration's key of `rows`, for the message.
  """
  shards = batch_shards(mesh, rules)
  unit = shards * accumulate_steps
  if rows < 1 or rows % unit:
    above = max(1, -(-rows // unit)) * unit
    raise ValueError(
      f"{name}={rows} must be a multiple of {unit} (train.accumulate_steps="
      f"{accumulate_steps} x {shards} shards of the batch over "
      f"{' x '.join(f'mesh.{a}' for a in rules.mesh_axes('batch'))}); the next "
      f"is {above}"
    )
