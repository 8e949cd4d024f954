"""The bytes that instructions of a program move to and from main memory."""

import collections
import re

from train.costs.hlo import (
  COLLECTIVES,
  ArrayType,
  Computation,
  HloProgram,
  Instruction,
)

# What reads and writes no array: names, views, and the calls whose bodies are
# counted on their own.
_FREE = {
  "after-all",
  "async-start",
  "bitcast",
  "call",
  "call-start",
  "conditional",
  "constant",
  "get-tuple-element",
  "iota",
  "opt-barrier",
  "parameter",
  "partition-id",
  "replica-id",
  "tuple",
  "while",
}
# Custom calls that move nothing.
_FREE_TARGETS = (
  "AllocateBuffer",
  "AssumeGatherIndicesInBound",
  "ConcatBitcast",
)
_SLICES = ("dynamic-slice", "slice", "gather")


def bytes_moved(
  program: HloProgram, computation: Computation, instruction: Instruction
) -> float:
  """Bytes that an instruction reads from and writes to main memory."""
  opcode = instruction.opcode
  if opcode in _FREE or opcode.endswith(("-done", "-update")):
    return 0.0
  if opcode == "custom-call" and instruction.target in _FREE_TARGETS:
    return 0.0
  scope = computation.instructions
  operands = [scope[n] for n in instruction.operands if n in scope]
  if opcode == "fusion":
    (name,) = instruction.called["calls"]
    fused = program.computations[name]
    return _moved_by_fusion(program, fused, instruction, operands)
  if opcode in ("copy-start", "dynamic-slice-start", "slice-start"):
    # The type repeats the operand's; last comes the copy's own handle.
    result = instruction.types[-2]
    spaces = [operands[0].types[0], result]
    if opcode == "copy-start":
      spaces = list(instruction.types[:2])
    return 1.0 * result.bytes * sum(t.in_main_memory for t in spaces)
  if opcode == "send":
    return float(_bytes(operands[0].types))
  results = instruction.types
  if instruction.target.startswith("__cublas$"):
    results = results[:1]  # What follows is room to work in.
  if opcode.endswith("-start"):
    # The type of most repeats the operands' before the results'.
    repeated = sum(len(operand.types) for operand in operands)
    results = results[repeated:] or results
  written = [t for t in results if t.in_main_memory]
  if opcode in _SLICES:
    return 2.0 * sum(t.bytes for t in written)
  if opcode == "dynamic-update-slice":
    return 2.0 * _bytes(operands[1].types)
  read = sum(_bytes(operand.types) for operand in operands)
  return float(read + sum(t.bytes for t in written))


def _bytes(types: tuple[ArrayType, ...]) -> int:
  return sum(t.bytes for t in types if t.in_main_memory)


def _moved_by_fusion(
  program: HloProgram,
  fused: Computation,
  call: Instruction,
  operands: list[Instruction],
) -> float:
  """A fusion reads of an operand what its slices need, and writes its root."""
  moved = 0.0
  handed_on = _handed_on(fused, call)
  users = _users(fused)
  updated = {
    fused.instructions[name].operands[0]: fused.instructions[name]
    for name in fused.instructions
    if fused.instructions[name].opcode == "dynamic-update-slice"
  }
  for number, parameter in fused.parameters().items():
    types = operands[number].types if number < len(operands) else ()
    whole = _bytes(types)
    if number in handed_on.values():
      continue
    if parameter.name in updated and len(users[parameter.name]) == 1:
      continue  # Written in place: its update is counted below.
    moved += _read(program, fused, parameter.name, whole)
  if updated:
    for update in updated.values():
      moved += fused.instructions[update.operands[1]].types[0].bytes
    inside = {t.dims for update in updated.values() for t in update.types}
    return moved + sum(
      t.bytes for t in call.types if t.in_main_memory and t.dims not in inside
    )
  written = [t for n, t in enumerate(call.types) if n not in handed_on]
  return moved + _bytes(tuple(written))


def _handed_on(fused: Computation, call: Instruction) -> dict[int, int]:
  """Results of a fusion that are operands, where a collective runs beside it.

  They are the collective's: the fusion neither reads nor writes them.
  """
  opcodes = {one.opcode for one in fused.instructions.values()}
  if opcodes.isdisjoint(COLLECTIVES):
    return {}
  pairs = re.findall(r"\{(\d+)\}: \((\d+), \{\}\)", call.attributes)
  return {int(result): int(operand) for result, operand in pairs}


def _read(
  program: HloProgram, fused: Computation, name: str, whole: int
) -> int:
  """Bytes read inside a fusion of an array of `whole` bytes: slices, or all."""
  if name == fused.root.name:
    return whole
  read = 0
  for reader in _users(fused)[name]:
    if reader.opcode in _SLICES:
      read += reader.types[0].bytes
    elif reader.opcode == "bitcast":
      read += _read(program, fused, reader.name, whole)
    elif reader.opcode == "fusion":
      inner = program.computations[reader.called["calls"][0]]
      parameters = inner.parameters()
      for number, operand in enumerate(reader.operands):
        if operand == name:
          read += _read(program, inner, parameters[number].name, whole)
    else:
      return whole
  return min(read, whole)


def _users(fused: Computation) -> dict[str, list[Instruction]]:
  users: dict[str, list[Instruction]] = collections.defaultdict(list)
  for instruction in fused.instructions.values():
    for name in instruction.operands:
      users[name].append(instruction)
  return users
