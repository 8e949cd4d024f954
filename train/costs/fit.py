"""Whether a program fits the memory of a device, and what would."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import jax

from train.config import Config
from train.costs.memory import Memory, device_bytes
from train.errors import Refusal


def memory_limit(device: Any) -> int | None:
  """Bytes that programs may have on a device; None where it does not say."""
  try:
    stats = device.memory_stats()
  except (AttributeError, NotImplementedError, RuntimeError, ValueError):
    # Devices of a topology have no memory, and say so by an error.
    return None
  return (stats or {}).get("bytes_limit")


@contextlib.contextmanager
def compiling(config: Config, state: Any, shards: int) -> Iterator[None]:
  """Inside, a compiler's refusal for lack of memory becomes a Refusal.

  Args:
    state: shapes and shardings of the state that the program updates.
    shards: see `check_fits`.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    used = re.search(r"Used ([\d.]+)G of ([\d.]+)G hbm", str(error))
    if "RESOURCE_EXHAUSTED" not in str(error) or used is None:
      raise
    total, limit = (round(float(n) * 2**30) for n in used.groups())
    params = device_bytes(state.params)
    optimizer = device_bytes(state.opt_state)
    fixed = params + optimizer
    memory = Memory(params, optimizer, fixed, 0, max(0, total - fixed), 0, 0, 0)
    check_fits(memory, limit, config, shards)
    raise


def check_fits(memory: Memory, limit: int, config: Config, shards: int) -> None:
  """Raises Refusal where a step needs more memory than a device has.

  The message names flags that, by the measured parts, would be enough.

  Args:
    shards: parts into which the mesh splits the rows of a batch.
  """
  if memory.total <= limit:
    return
  remedies = "; or ".join(_remedies(memory, limit, config, shards))
  raise Refusal(
    f"the step needs {memory.total / 1e9:.2f} GB of a device's memory, which "
    f"has {limit / 1e9:.2f}: parameters {memory.parameters / 1e9:.2f}, "
    f"optimizer {memory.optimizer / 1e9:.2f}, temporary "
    f"{memory.temporary / 1e9:.2f}. {remedies}"
  )


def _remedies(
  memory: Memory, limit: int, config: Config, shards: int
) -> list[str]:
  left = limit - (memory.total - memory.temporary)
  if left <= 0:
    # Parameters and optimizer alone: more devices must share them.
    parts = _least_parts(memory.parameters + memory.optimizer, limit)
    return [
      f"Set mesh.fsdp to {parts} times what it is, or more, with mesh.data=-1: "
      "devices then share the state",
      "choose a smaller model",
    ]
  train = config.train
  # Rows of a microbatch on one device, and into how many parts they can be cut.
  rows = train.batch_size // (train.accumulate_steps * shards)
  times = -(-memory.temporary // left)
  fewer = next((n for n in range(times, rows + 1) if rows % n == 0), None)
  remedies = []
  if fewer is not None:
    remedies = [
      f"Set train.accumulate_steps={train.accumulate_steps * fewer}: "
      f"{rows // fewer} rows a device at a time",
      f"train.batch_size={train.batch_size // fewer}",
    ]
  if config.model.remat != "full":
    remedies.append("model.remat='full', which keeps least")
  if train.loss_chunks == 1:
    remedies.append("train.loss_chunks=4")
  return remedies or [
    "Shorten data.max_source_length, or choose a smaller model"
  ]


def _least_parts(state: int, limit: int) -> int:
  """The least power of two that brings the state to half of a device."""
  parts = 2
  while state / parts > limit / 2:
    parts *= 2
  return parts
