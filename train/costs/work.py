"""The work of a compiled program on one device: operations, bytes moved."""

import collections
import dataclasses
import math
import re

from train.costs.hlo import ArrayType, Computation, HloProgram, Instruction
from train.costs.traffic import bytes_moved

# What JAX's own transformations add to the name of a place.
_WRAPPERS = r"jit|while|body|closed_call|checkpoint|remat"


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
      bytes_ = times * bytes_moved(program, computation, instruction)
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
