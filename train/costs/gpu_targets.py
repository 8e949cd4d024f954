"""NVIDIA GPUs as XLA's compiler is told of them: its target, as a text proto.

What the compiler chooses tiles, unrolling and memory by. The limits of threads,
registers and shared memory are those of compute capability 9.0 in the CUDA C++
Programming Guide, "Compute Capabilities"; multiprocessors, cache and clock are
of NVIDIA's "H100 Tensor Core GPU Architecture", of the SXM5 module, which the
H200 shares; memory and its bandwidth are those of `chips`.
"""

import dataclasses

from train.costs.chips import CHIPS


@dataclasses.dataclass(frozen=True)
class GpuTarget:
  """What tells one GPU of a generation from another.

  Attributes:
    device_kind: as JAX names the device where there is one.
    multiprocessors: that are enabled.
    cache: the second level's, in bytes.
    clock: in GHz, the highest.
  """

  device_kind: str
  multiprocessors: int
  cache: int
  clock: float


# By kind of a topology's name, as in "h200:8".
GPU_TARGETS = {
  "h100": GpuTarget("NVIDIA H100 80GB HBM3", 132, 50 << 20, 1.98),
  "h200": GpuTarget("NVIDIA H200", 132, 50 << 20, 1.98),
}
# Of compute capability 9.0.
_HOPPER = {
  "threads_per_warp": 32,
  "threads_per_block_limit": 1024,
  "threads_per_core_limit": 2048,
  "block_dim_limit_x": 2**31 - 1,
  "block_dim_limit_y": 2**16 - 1,
  "block_dim_limit_z": 2**16 - 1,
  "registers_per_block_limit": 2**16,
  "registers_per_core_limit": 2**16,
  "shared_memory_per_block": 48 << 10,
  "shared_memory_per_block_optin": 227 << 10,
  "shared_memory_per_core": 228 << 10,
  "fpus_per_core": 128,
}


def target_config(kind: str) -> str:
  """The target of a kind of GPU: a `GpuTargetConfigProto` as text."""
  target, chip = GPU_TARGETS[kind], CHIPS[kind]
  figures = _HOPPER | {
    "core_count": target.multiprocessors,
    "l2_cache_size": target.cache,
    "clock_rate_ghz": target.clock,
    "memory_bandwidth": round(chip.bandwidth),
    "device_memory_size": round(chip.memory),
  }
  lines = [f"  {name}: {value}" for name, value in figures.items()]
  return "\n".join(
    [
      "gpu_device_info {",
      *lines,
      "  cuda_compute_capability {",
      "    major: 9",
      "    feature_extension: ACCELERATED_FEATURES",
      "  }",
      "}",
      'platform_name: "CUDA"',
      # Kernels of cuDNN need a device; which version it is decides nothing.
      "dnn_version_info { major: 9 minor: 10 }",
      f'device_description_str: "{target.device_kind}"',
    ]
  )
