"""The collectives of a compiled program: how many bytes, over which axes."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from train.costs.hlo import (
  COLLECTIVES,
  Computation,
  HloProgram,
  Instruction,
)

# What a TPU's compiler calls a reduction whose result is cut at once.
_SCATTERED = "all-reduce-scatter"
_FUSIONS = ("fusion", "fusion-start")
# The fusion of a TPU's program that starts what others go on with.
_START = "async-collective-start"
# Between slices a TPU's program sends its part to the hosts' network.
_BETWEEN_SLICES = re.compile(
  r'_xla_megascale_target="\{(?P<slices>[\d,:]+)\}.*'
  r'_xla_megascale_transfer_type="(?P<kind>\w+)"'
)


@dataclasses.dataclass(frozen=True)
class Collective:
  """All collectives of a kind over the same axes of the mesh, in one step.

  Attributes:
    axes: of the mesh, over which the devices of a group differ.
    group: devices that take part in one of them.
    count: how often a device takes part.
    bytes: of the arrays that a device ends with (gathers, permutes) or starts
      from (reductions), all together.
    members: of one group, as places in the flattened mesh; empty between
      slices. A group may be a part of its axes.
  """

  kind: str
  axes: tuple[str, ...]
  group: int
  count: int
  bytes: int
  members: tuple[int, ...] = dataclasses.field(default=(), compare=False)

  @property
  def sent(self) -> float:
    """Bytes that a device sends by ring algorithms, which send the least."""
    share = (self.group - 1) / self.group
    match self.kind:
      case "all-reduce":
        return 2 * share * self.bytes
      case "collective-permute":
        return self.bytes
      case _:
        return share * self.bytes


def collectives(
  program: HloProgram, mesh: Mesh, unknown_trips: int = 1
) -> list[Collective]:
  """The collectives of one run of a program, the largest first.

  Args:
    mesh: that the program was compiled for.
    unknown_trips: of loops whose end depends on values.
  """
  found: dict[tuple, list[int]] = collections.defaultdict(lambda: [0, 0])
  started = _started(program)
  for computation, times in program.executed(unknown_trips):
    for kind, instruction, size in _in(program, computation, started):
      slices = _slices(instruction)
      axes, group, members = ("slice",), slices, ()
      if not slices:
        axes, members = _place(instruction, mesh)
        group = len(members)
      elif kind == "all-gather":
        size *= slices
      if group > 1:
        total = found[kind, axes, group, members]
        total[0] += times
        total[1] += times * size
  listed = [
    Collective(kind, axes, group, count, size, members)
    for (kind, axes, group, members), (count, size) in found.items()
  ]
  return sorted(listed, key=lambda one: (-one.bytes, one.kind, one.axes))


def _started(program: HloProgram) -> set[str]:
  """The names of collectives in fusions that go on with one.

  A collective that runs beside other work stands in several fusions, by one
  channel: in one that starts it, and in others, which may be in a loop.
  """
  starts: set[str] = set()
  steps: dict[str, str] = {}
  for computation in program.computations.values():
    for call in computation.instructions.values():
      for name in sum(call.called.values(), ()):
        if call.opcode not in _FUSIONS:
          continue
        for _, one in _with_fused(program, program.computations[name], False):
          if call.name.startswith(_START):
            starts.add(_channel(one))
          else:
            steps[one.name] = _channel(one)
  return {name for name, channel in steps.items() if channel in starts}


def _channel(instruction: Instruction) -> str:
  found = re.search(r"channel_id=\d+", instruction.attributes)
  return found.group() if found else instruction.name


def _in(
  program: HloProgram, computation: Computation, started: set[str]
) -> Iterator[tuple[str, Instruction, int]]:
  """Kind, instruction and bytes of each collective that a computation runs.

  Outside of fusions, and between slices, others may have the same channel.

  Args:
    started: collectives that were started elsewhere.
  """
  found: dict[tuple[str, ...], tuple[str, Instruction, int]] = {}
  for kind, instruction in _with_fused(program, computation, False):
    if instruction.name in started:
      continue
    size = _bytes(kind, instruction)
    key: tuple[str, ...] = (instruction.name,)
    if instruction.name not in computation.instructions:
      key = (kind, _channel(instruction))
    if key not in found or size > found[key][2]:
      found[key] = kind, instruction, size
  yield from found.values()


def _with_fused(
  program: HloProgram, computation: Computation, scattered: bool
) -> Iterator[tuple[str, Instruction]]:
  for instruction in computation.instructions.values():
    kind = instruction.opcode.removesuffix("-start")
    if kind in COLLECTIVES:
      scatter = scattered and kind == "all-reduce"
      yield "reduce-scatter" if scatter else kind, instruction
    elif _slices(instruction):
      yield _kind_between_slices(instruction), instruction
    elif instruction.opcode in _FUSIONS:
      for name in sum(instruction.called.values(), ()):
        fused = program.computations[name]
        yield from _with_fused(program, fused, name.startswith(_SCATTERED))


def _slices(instruction: Instruction) -> int:
  """Slices that exchange what an instruction sends; 0: it sends to none."""
  found = _BETWEEN_SLICES.search(instruction.attributes)
  if instruction.opcode != "send" or not found:
    return 0
  count = 0
  for part in found["slices"].split(","):
    first, _, last = part.partition(":")
    count += int(last or first) - int(first) + 1
  return count


def _kind_between_slices(instruction: Instruction) -> str:
  found = _BETWEEN_SLICES.search(instruction.attributes)
  kind = found["kind"].lower().replace("_", "-") if found else ""
  return kind if kind in COLLECTIVES else "collective-permute"


def _bytes(kind: str, instruction: Instruction) -> int:
  sizes = [type_.bytes for type_ in instruction.types]
  if instruction.opcode == "send":
    return sizes[0]
  if kind == "collective-permute":
    return sizes[-1] if instruction.opcode == kind else sizes[1]
  if instruction.opcode in ("all-gather-start", "all-to-all-start"):
    # Operands and results.
    return sum(sizes[len(sizes) // 2 :])
  if instruction.opcode == "reduce-scatter-start":
    return sum(sizes[: len(instruction.operands)])
  total = sum(sizes)
  if instruction.opcode == "reduce-scatter":
    found = _groups(instruction.attributes)
    return total * (len(found[0]) if found else 1)
  return total


def _place(
  instruction: Instruction, mesh: Mesh
) -> tuple[tuple[str, ...], tuple[int, ...]]:
  """Axes over which devices of a group differ; the largest group's devices."""
  pairs = re.search(r"source_target_pairs=\{(.*?\})\}", instruction.attributes)
  if pairs:
    found = re.findall(r"\{(\d+),(\d+)\}", pairs.group(1))
    groups = [[int(a), int(b)] for a, b in found if a != b]
  else:
    groups = _groups(instruction.attributes) or [list(range(mesh.size))]
  shape = tuple(mesh.shape.values())
  axes: set[int] = set()
  for group in groups:
    places = np.stack(np.unravel_index(np.asarray(group), shape))
    differ = (places != places[:, :1]).any(axis=1)
    axes |= set(np.flatnonzero(differ).tolist())
  names = tuple(mesh.axis_names[axis] for axis in sorted(axes))
  return names, tuple(max(groups, key=len, default=()))


def _groups(text: str) -> Sequence[Sequence[int]] | None:
  """The groups of devices in a collective's attributes; None: all devices.

  All forms that XLA prints: a list, an iota ("[4,4]<=[16]T(1,0)"), and a mesh
  with the axes that are reduced.
  """
  listed = re.search(r"replica_groups=\{(\{.*?\})\}", text)
  if listed:
    return [
      [int(n) for n in group.split(",") if n.strip()]
      for group in re.findall(r"\{([0-9, ]*)\}", listed.group(1))
    ]
  mesh = re.search(
    r"replica_groups=mesh\[(?P<axes>[^\]]*)\](?:, device_ids=\((?P<ids>.*?)\)"
    r"(?= \{))? \{(?P<chosen>[^}]*)\}",
    text,
  )
  if mesh:
    axes = dict(re.findall(r"'([^']+)'=(\d+)", mesh["axes"]))
    sizes = {axis: int(size) for axis, size in axes.items()}
    chosen = re.findall(r"'([^']+)'", mesh["chosen"])
    return _mesh_groups(sizes, chosen, mesh["ids"])
  iota = re.search(
    r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text
  )
  if iota:
    shape = [int(n) for n in iota.group(1).split(",")]
    ids = _iota(iota.group(2), iota.group(3))
    return [ids[at : at + shape[1]] for at in range(0, len(ids), shape[1])]
  return None


def _iota(dims: str, order: str | None) -> list[int]:
  sizes = [int(n) for n in dims.split(",")]
  ids = np.arange(math.prod(sizes)).reshape(sizes)
  if order:
    ids = ids.transpose([int(n) for n in order.split(",")])
  return ids.reshape(-1).tolist()


def _mesh_groups(
  sizes: Mapping[str, int], chosen: Sequence[str], ids: str | None
) -> list[list[int]]:
  order = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", ids or "")
  if order:
    flat = _iota(order.group(1), order.group(2))
  elif ids:
    flat = [int(n) for n in re.findall(r"\d+", ids)]
  else:
    flat = list(range(math.prod(sizes.values())))
  names = list(sizes)
  array = np.asarray(flat).reshape([sizes[name] for name in names])
  rest = [names.index(name) for name in names if name not in chosen]
  last = [names.index(name) for name in names if name in chosen]
  size = math.prod(sizes[name] for name in chosen)
  return array.transpose(rest + last).reshape(-1, size).tolist()
