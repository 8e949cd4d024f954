"""The memory that a program takes on one device, by what it holds."""

import dataclasses
import math
from typing import Any

import jax

from train.costs.hlo import Computation, HloProgram, source


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one device.

  Attributes:
    parameters: of the state, as it is sharded.
    optimizer: what it has besides them, averages of them too.
    inputs: all that the program is given: the state, a batch.
    outputs: those that do not take the place of donated inputs.
    temporary: everything while it runs, activations among it.
    activations: what loops of the forward pass keep for the backward pass.
    code: the program itself.
  """

  parameters: int
  optimizer: int
  inputs: int
  outputs: int
  temporary: int
  activations: int
  code: int
  donated: int

  @property
  def total(self) -> int:
    return self.inputs + self.outputs + self.temporary + self.code


def memory_of(compiled: Any, program: HloProgram, state: Any) -> Memory:
  """The memory of a compiled program.

  Args:
    compiled: what `jax.jit(...).lower(...).compile()` gives.
    program: its text, read.
    state: shapes and shardings of what it updates: a `TrainState`, or
      parameters alone.
  """
  stats = compiled.memory_analysis()
  params = getattr(state, "params", state)
  optimizer = getattr(state, "opt_state", ()), getattr(state, "ema", None)
  return Memory(
    parameters=device_bytes(params),
    optimizer=device_bytes(optimizer),
    inputs=stats.argument_size_in_bytes,
    outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
    temporary=stats.temp_size_in_bytes,
    activations=_kept_for_backward(program),
    code=stats.generated_code_size_in_bytes,
    donated=stats.alias_size_in_bytes,
  )


def device_bytes(tree: Any) -> int:
  """Bytes of one device's part of arrays, or of their shapes and shardings."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    if leaf.sharding is not None
    else leaf.size * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _kept_for_backward(program: HloProgram) -> int:
  """Bytes that one loop gives and another one is given.

  Those of a step stand beside each other, in a loop over microbatches if there
  are several.
  """
  return max(_kept_between_loops(one) for one, _ in program.executed())


def _kept_between_loops(computation: Computation) -> int:
  kept: dict[tuple[str, str], int] = {}
  for loop in computation.instructions.values():
    if loop.opcode != "while":
      continue
    given = computation.instructions[loop.operands[0]]
    for name in given.operands:
      part = source(computation, name)
      if part.opcode != "get-tuple-element":
        continue
      maker = computation.instructions[part.operands[0]]
      if maker.opcode == "while" and maker.name != loop.name:
        held = computation.instructions[name]
        kept[maker.name, part.name] = held.types[0].bytes
  return sum(kept.values())
