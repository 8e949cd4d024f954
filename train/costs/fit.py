"""Whether a program fits the memory of a device, and what would."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from train.config import Config
from train.costs.memory import Memory, device_bytes
from train.errors import Refusal
from train.mesh import batch_shards, sharding_rules


def memory_limit(device: Any) -> int | None:
  """Bytes that programs may have on a device; None where it does not say."""
  try:
    stats = device.memory_stats()
  except (AttributeError, NotImplementedError, RuntimeError, ValueError):
    # Devices of a topology have no memory, and say so by an error.
    return None
  return (stats or {}).get("bytes_limit")


@contextlib.contextmanager
def compiling(config: Config, state: Any, mesh: Mesh) -> Iterator[None]:
  """Inside, a compiler's refusal for lack of memory becomes a Refusal.

  Args:
    state: shapes and shardings of the state that the program updates.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    needed = _lack(error)
    if needed is None:
      raise
    total, limit = needed
    params = device_bytes(state.params)
    optimizer = device_bytes((state.opt_state, state.ema))
    fixed = params + optimizer
    memory = Memory(params, optimizer, fixed, 0, max(0, total - fixed), 0, 0, 0)
    raise _refusal(memory, limit, config, mesh) from error


@contextlib.contextmanager
def compiling_generation(rows: int) -> Iterator[None]:
  """As `compiling`, of the programs that write texts for `rows` sources."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    needed = _lack(error)
    if needed is None:
      raise
    raise _generation_refusal(*needed, rows) from error


def _lack(error: Exception) -> tuple[int, int] | None:
  """(needed, there) in bytes where a TPU's compiler lacks memory."""
  used = re.search(r"Used ([\d.]+)G of ([\d.]+)G hbm", str(error))
  if "RESOURCE_EXHAUSTED" not in str(error) or used is None:
    return None
  return round(float(used[1]) * 2**30), round(float(used[2]) * 2**30)


def check_fits(memory: Memory, limit: int, config: Config, mesh: Mesh) -> None:
  """Raises Refusal where a step needs more memory than a device has.

  The message names flags that, by the measured parts, would be enough.
  """
  if memory.total > limit:
    raise _refusal(memory, limit, config, mesh)


def check_generation_fits(memory: Memory, limit: int, rows: int) -> None:
  """Raises Refusal where generating needs more memory than a device has."""
  if memory.total > limit:
    raise _generation_refusal(memory.total, limit, rows)


def _generation_refusal(total: int, limit: int, rows: int) -> Refusal:
  return Refusal(
    f"generation for {rows} rows needs {total / 1e9:.2f} GB of a device's "
    f"memory, which has {limit / 1e9:.2f}. Lower eval.batch_size (0: "
    "train.batch_size), generation.num_beams or generation.max_length"
  )


def _refusal(memory: Memory, limit: int, config: Config, mesh: Mesh) -> Refusal:
  remedies = "; or ".join(_remedies(memory, limit, config, mesh))
  return Refusal(
    f"the step needs {memory.total / 1e9:.2f} GB of a device's memory, which "
    f"has {limit / 1e9:.2f}: parameters {memory.parameters / 1e9:.2f}, "
    f"optimizer {memory.optimizer / 1e9:.2f}, temporary "
    f"{memory.temporary / 1e9:.2f}. Set {remedies}; or choose a smaller model"
  )


def _remedies(
  memory: Memory, limit: int, config: Config, mesh: Mesh
) -> list[str]:
  fixed = memory.total - memory.temporary
  if fixed >= limit:
    # Parameters and optimizer alone: more devices must share them.
    return [_more_sharding(memory, limit, mesh)]
  train = config.train
  shards = batch_shards(mesh, sharding_rules(config))
  rows = train.batch_size // (train.accumulate_steps * shards)
  # Gradients, and their sum over microbatches, do not shrink with rows.
  gradients = min(memory.temporary, 2 * memory.parameters)
  left = limit - fixed - gradients
  enough = [
    n
    for n in range(2, rows + 1)
    if rows % n == 0 and (memory.temporary - gradients) / n <= left
  ]
  remedies = []
  if enough:
    fewer = enough[0]
    remedies = [
      f"train.accumulate_steps={train.accumulate_steps * fewer}: "
      f"{rows // fewer} rows of a device at a time",
      f"train.batch_size={train.batch_size // fewer}",
    ]
  if config.model.remat != "full":
    remedies.append("model.remat='full', which keeps least")
  if train.loss_chunks == 1:
    remedies.append("train.loss_chunks=4")
  return remedies or [_more_sharding(memory, limit, mesh)]


def _more_sharding(memory: Memory, limit: int, mesh: Mesh) -> str:
  """The least `mesh.fsdp` that brings the state to half of a device."""
  state, now = memory.parameters + memory.optimizer, mesh.shape["fsdp"]
  there = mesh.shape["data"] * now
  enough = [
    n
    for n in range(now + 1, there + 1)
    if there % n == 0 and state * now / n <= limit / 2
  ]
  if enough:
    return (
      f"mesh.fsdp={enough[0]} or more, with mesh.data=-1: devices then share "
      "the state"
    )
  parts = 2 * now
  while state * now / parts > limit / 2:
    parts *= 2
  return (
    f"mesh.fsdp={parts}, on as many devices or more: they then share the state"
  )
