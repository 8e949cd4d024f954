"""The work of a compiled program on one device: operations, bytes moved."""

import collections
import dataclasses
import math
import re

from train.costs.hlo import ArrayType, Computation, HloProgram, Instruction

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
# What JAX's own transformations add to the name of a place.
_WRAPPERS = r"jit|while|body|closed_call|checkpoint|remat"
_SLICES = ("dynamic-slice", "slice", "gather")


@dataclasses.dataclass(frozen=True)
class Work:
  """One run of a program on one device.

  Attributes:
    flops: of matrix products and convolutions; a multiply-add is two.
    bytes: read from and written to the device's main memory.
    terms: bytes by where in the model they are moved, the largest first.
    kernels: fused kernels whose operations are not counted, by their names.
  """

  flops: float
  bytes: float
  terms: tuple[tuple[str, float], ...]
  kernels: tuple[str, ...]


def work(program: HloProgram, unknown_trips: int = 1) -> Work:
  """Counts a program, loops with their trips.

  Element-wise operations are left out of `flops`: they run beside products,
  and what they cost is what they move.
  """
  flops, moved = 0.0, 0.0
  terms: dict[str, float] = collections.defaultdict(float)
  unknown: set[str] = set()
  for computation, times in program.executed(unknown_trips):
    for instruction in computation.instructions.values():
      flops += times * _flops(program, computation, instruction, unknown)
      bytes_ = times * _moved(program, computation, instruction)
      moved += bytes_
      if bytes_:
        place = place_of(instruction.op_name) or instruction.opcode
        terms[place] += bytes_
  ordered = sorted(terms.items(), key=lambda term: -term[1])
  return Work(flops, moved, tuple(ordered), tuple(sorted(unknown)))


def place_of(op_name: str) -> str:
  """A short name of the place in the model that an instruction comes from."""
  parts = [
    part
    for part in re.split(r"[/()]", op_name)
    if part and not re.match(_WRAPPERS, part)
  ]
  backward = "transpose" in parts
  rest = [p for p in parts if p not in ("transpose", "jvp", "step")]
  name = "/".join(rest[-3:])
  return f"{name} (backward)" if backward and name else name


def _flops(
  program: HloProgram,
  computation: Computation,
  instruction: Instruction,
  unknown: set[str],
) -> float:
  match instruction.opcode:
    case "dot":
      return _dot_flops(computation, instruction)
    case "convolution":
      return _convolution_flops(computation, instruction)
    case "custom-call":
      return _kernel_flops(computation, instruction, unknown)
    case "fusion" | "fusion-start":
      inside = [
        _flops(program, program.computations[name], inner, unknown)
        for name in sum(instruction.called.values(), ())
        for inner in program.computations[name].instructions.values()
      ]
      return sum(inside, 0.0)
  return 0.0


def _operand(
  computation: Computation, instruction: Instruction, number: int
) -> ArrayType:
  return computation.instructions[instruction.operands[number]].types[0]


def _dot_flops(computation: Computation, dot: Instruction) -> float:
  """Of a product, as XLA's own instruction or as a call of cuBLAS."""
  left = _operand(computation, dot, 0)
  contracted = re.search(
    r'lhs_contracting_dim(?:s=\{|ensions":\[)([^\]}]*)', dot.attributes
  )
  axes = re.findall(r"\d+", contracted.group(1)) if contracted else []
  inner = math.prod(left.dims[int(axis)] for axis in axes)
  return 2.0 * inner * dot.types[0].elements


def _convolution_flops(computation: Computation, conv: Instruction) -> float:
  """Multiply-adds with what is no padding and no hole of dilation."""
  left, right, out = (
    _operand(computation, conv, 0),
    _operand(computation, conv, 1),
    conv.types[0],
  )
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", conv.attributes)
  assert labels, "a convolution names its dimensions"
  of_left, of_right, of_out = labels.groups()
  groups = _number(conv, "feature_group_count")
  batch_groups = _number(conv, "batch_group_count")
  products = 1.0
  for axis in sorted(set(of_right) - {"i", "o"}):
    window = int(axis)
    products *= _positions(
      _window(conv, "size", window, 1),
      _window(conv, "stride", window, 1),
      _padding(conv, window),
      _window(conv, "lhs_dilate", window, 1),
      _window(conv, "rhs_dilate", window, 1),
      left.dims[of_left.index(axis)],
      out.dims[of_out.index(axis)],
    )
  inputs = left.dims[of_left.index("f")] / groups
  batch = left.dims[of_left.index("b")] / batch_groups
  return 2.0 * products * inputs * batch * right.dims[of_right.index("o")]


def _number(instruction: Instruction, name: str) -> int:
  found = re.search(rf"{name}=(\d+)", instruction.attributes)
  return int(found.group(1)) if found else 1


def _window(conv: Instruction, part: str, axis: int, default: int) -> int:
  found = re.search(rf"window=\{{[^}}]*\b{part}=([\dx]+)", conv.attributes)
  return int(found.group(1).split("x")[axis]) if found else default


def _padding(conv: Instruction, axis: int) -> int:
  found = re.search(r"window=\{[^}]*\bpad=([\d_x\-]+)", conv.attributes)
  return int(found.group(1).split("x")[axis].split("_")[0]) if found else 0


def _positions(
  size: int,
  stride: int,
  low: int,
  left_dilation: int,
  right_dilation: int,
  inputs: int,
  outputs: int,
) -> int:
  """Pairs of an output and a place in the window that meet an input."""
  meeting = 0
  for place in range(size):
    for output in range(outputs):
      at = output * stride + place * right_dilation - low
      if at % left_dilation == 0 and 0 <= at // left_dilation < inputs:
        meeting += 1
  return meeting


# Matrix products of queries x keys x width that a kernel of attention computes;
# its text states no cost. The backward pass makes the weights anew (Dao et al.
# 2022, "FlashAttention", appendix B).
_ATTENTION_KERNELS = ("splash_mha_", "short_")
_PRODUCTS = (("_fwd", 2), ("_dkv", 4), ("_dq", 3), ("_bwd", 5))
# Targets of calls that compute products, and state no cost.
_UNCOUNTED = ("__cudnn$", "__onednn$", "triton", "__gpu$")


def _kernel_flops(
  computation: Computation, call: Instruction, unknown: set[str]
) -> float:
  if call.target.startswith("__cublas$"):
    return _dot_flops(computation, call)
  if call.target.startswith(_UNCOUNTED):
    unknown.add(call.target)
    return 0.0
  if call.target != "tpu_custom_call":
    return 0.0
  products = next((n for part, n in _PRODUCTS if part in call.name), 0)
  if not products or not any(name in call.name for name in _ATTENTION_KERNELS):
    unknown.add(re.sub(r"[.\d]+$", "", call.name))
    return 0.0
  # Queries `B H T K`, keys `B G S K` and values, or with heads and their width
  # in one, are the first arrays of three dimensions or more of floats.
  arrays = [
    computation.instructions[name].types[0]
    for name in call.operands
    if name in computation.instructions
  ]
  wide = [a for a in arrays if len(a.dims) >= 3 and a.dtype[:1] in "bf"]
  queries, keys = wide[0], wide[1]
  # The kernel of both gives the queries' gradient too, a part a block of keys.
  if "_dkv" in call.name and any(len(t.dims) == 5 for t in call.types):
    products += 1
  return 2.0 * products * queries.elements * keys.dims[-2]


def _moved(
  program: HloProgram, computation: Computation, instruction: Instruction
) -> float:
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
  users = _users(fused)
  updated = {
    fused.instructions[name].operands[0]: fused.instructions[name]
    for name in fused.instructions
    if fused.instructions[name].opcode == "dynamic-update-slice"
  }
  for number, parameter in fused.parameters().items():
    types = operands[number].types if number < len(operands) else ()
    whole = _bytes(types)
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
  return moved + _bytes(call.types)


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
