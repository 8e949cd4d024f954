"""What a program costs, as lines for its reader."""

from collections.abc import Sequence

from jax.sharding import Mesh

from train.costs.ahead import AheadOfTime
from train.costs.collectives import Collective
from train.costs.hlo import Loop
from train.costs.program_costs import ProgramCosts
from train.costs.work import place_of

_TERMS = 6


def table(ahead: AheadOfTime, mesh: Mesh, pairs: int | None = None) -> str:
  """All figures of a program, of one device.

  Args:
    pairs: of a run of the program on all devices, for pairs a second.
  """
  costs = ahead.costs
  lines = [
    f"compiled in {ahead.seconds:.0f} s for {describe(mesh)}",
    "",
    *_memory_lines(costs),
    "",
    f"work of a device: {costs.work.flops / 1e12:.2f} TFLOP, "
    f"{costs.work.bytes / 1e9:.1f} GB of its memory read and written",
    *(
      f"  {moved / 1e9:8.2f} GB  {place}"
      for place, moved in costs.work.terms[:_TERMS]
    ),
    *(f"  not counted: kernel {name}" for name in costs.work.kernels),
    "",
    *_collective_lines(costs.collectives),
    "",
    "loops: " + (", ".join(_loop_names(costs)) or "none"),
  ]
  if costs.roofline is not None:
    lines += ["", *_roofline_lines(costs, pairs)]
  return "\n".join(lines)


def describe(mesh: Mesh) -> str:
  """The mesh in words: devices, their kind, axes of more than one."""
  axes = [f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1]
  kind = mesh.devices.flat[0].device_kind
  return f"{mesh.size} x {kind} ({', '.join(axes) or 'one device'})"


def summary(costs: ProgramCosts, mesh: Mesh, pairs: float | int) -> list[str]:
  """Five lines: where it runs, memory, work, communication, time.

  Args:
    pairs: of a step.
  """
  memory = costs.memory
  of = f" of {costs.chip.memory / 1e9:.1f}" if costs.chip else ""
  moved = sum(one.bytes for one in costs.collectives)
  kernels = ", ".join(costs.work.kernels)
  missing = f", without the FLOPs of {kernels}" if kernels else ""
  lines = [
    f"the step runs on {describe(mesh)}",
    f"memory of a device: {memory.total / 1e9:.2f}{of} GB: parameters "
    f"{memory.parameters / 1e9:.2f}, optimizer {memory.optimizer / 1e9:.2f}, "
    f"temporary {memory.temporary / 1e9:.2f}",
    f"work of a device: {costs.work.flops / 1e12:.3g} TFLOP, "
    f"{costs.work.bytes / 1e9:.3g} GB of its memory{missing}",
    f"communication of a device: {moved / 1e9:.3g} GB in "
    f"{sum(one.count for one in costs.collectives)} collectives",
  ]
  if costs.roofline is None:
    lines.append("time: the figures of this chip are not known")
  else:
    roof = costs.roofline
    lines.append(
      f"time: at least {roof.seconds * 1e3:.3g} ms, {roof.binding} the longest "
      f"part: at most {pairs / roof.seconds:.4g} pairs/s"
    )
  return lines


def _memory_lines(costs: ProgramCosts) -> list[str]:
  memory = costs.memory
  rows = [
    ("parameters", memory.parameters),
    ("optimizer state", memory.optimizer),
    ("batch, other inputs", _others(costs)),
    ("outputs that are new", memory.outputs),
    ("temporary", memory.temporary),
    ("  activations kept for the backward pass", memory.activations),
    ("program", memory.code),
    ("together", memory.total),
  ]
  lines = ["memory of a device, GB"]
  lines += [f"  {size / 1e9:8.3f}  {name}" for name, size in rows]
  lines.append(f"  {memory.donated / 1e9:8.3f}  donated: updated in place")
  if costs.chip:
    share = memory.total / costs.chip.memory
    lines.append(
      f"  {costs.chip.memory / 1e9:8.3f}  the chip has; {share:.0%} are used"
    )
  return lines


def _others(costs: ProgramCosts) -> int:
  memory = costs.memory
  return max(0, memory.inputs - memory.parameters - memory.optimizer)


def _collective_lines(found: Sequence[Collective]) -> list[str]:
  if not found:
    return ["collectives: none"]
  lines = ["collectives of a device", "         GB  count"]
  for one in found:
    axes = " x ".join(one.axes)
    lines.append(
      f"  {one.bytes / 1e9:9.4f}  {one.count:5d}  {one.kind} over {axes}, "
      f"{one.group} devices"
    )
  return lines


def _loop_names(costs: ProgramCosts) -> list[str]:
  return [
    f"{_trips(loop, costs)} x {place_of(loop.op_name) or loop.name}"
    for loop in costs.loops
  ]


def _trips(loop: Loop, costs: ProgramCosts) -> str:
  if loop.trips is not None:
    return str(loop.trips)
  # Its end depends on values, or the text says it in a way not known here.
  most = costs.unknown_trips
  return f"at most {most}" if most > 1 else "unknown, counted once,"


def _roofline_lines(costs: ProgramCosts, pairs: int | None) -> list[str]:
  roof = costs.roofline
  assert roof is not None
  rows = [
    ("compute", roof.compute),
    ("memory", roof.memory),
    ("interconnect", roof.interconnect),
    ("network", roof.network),
  ]
  lines = ["least time, ms, were every part at its peak"]
  for name, seconds in rows:
    mark = "  <- the longest" if name == roof.binding else ""
    lines.append(f"  {seconds * 1e3:8.2f}  {name}{mark}")
  rate = (
    "" if pairs is None else f": at most {pairs / roof.seconds:.4g} pairs/s"
  )
  lines.append(
    f"  {roof.seconds * 1e3:8.2f}  together, no communication hidden{rate}"
  )
  return lines
