"""The memory that a program takes on one device, by what it holds."""

import dataclasses
import math
from typing import Any

import jax

from train.costs.hlo import Computation, HloProgram, Instruction

_VIEWS = ("copy", "bitcast", "copy-start", "copy-done", "reshape")


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one device.

  Attributes:
    parameters, optimizer: of the state, as it is sharded.
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
  optimizer = getattr(state, "opt_state", ())
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
  """Bytes that one loop gives and another one is given."""
  entry = program.computations[program.entry]
  kept: dict[tuple[str, str], int] = {}
  for loop in entry.instructions.values():
    if loop.opcode != "while":
      continue
    given = entry.instructions[loop.operands[0]]
    for name in given.operands:
      source = _source(entry, name)
      if source.opcode != "get-tuple-element":
        continue
      maker = entry.instructions[source.operands[0]]
      if maker.opcode == "while" and maker.name != loop.name:
        kept[maker.name, source.name] = source.types[0].bytes
  return sum(kept.values())


def _source(scope: Computation, name: str) -> Instruction:
  instruction = scope.instructions[name]
  while instruction.opcode in _VIEWS:
    instruction = scope.instructions[instruction.operands[0]]
  return instruction
