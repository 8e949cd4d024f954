"""The text of a compiled program, read: computations, loops, instructions.

XLA gives a compiled program as text. Its own count of operations takes the
body of a loop once, and the text for a TPU states no trip count: it is read
from the loop's condition here.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

# Of an element, by the letters and the number of a type's name.
_BITS = re.compile(r"[a-z]+(\d+)")


def _element_bytes(dtype: str) -> float:
  """Of "bf16", 2; "pred" takes one, and what is no array ("token") none."""
  bits = _BITS.match(dtype)
  return int(bits.group(1)) / 8 if bits else float(dtype == "pred")


_ARRAY = re.compile(r"([a-z]+[0-9a-z]*)\[([0-9,<= ]*)\](\{[^}]*\})?")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
  r"\b(calls|to_apply|body|condition|branch_computations|"
  r"true_computation|false_computation)=\{?(%[\w.\-]+(?:, *%[\w.\-]+)*)"
)
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# What stands for an array that is elsewhere.
_VIEWS = ("bitcast", "convert", "copy", "copy-done", "copy-start", "reshape")
_HBM = 0
# What runs the instructions of other computations, once.
CALLS = ("async-start", "call", "call-start", "conditional")
COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-permute",
  "reduce-scatter",
)


@dataclasses.dataclass(frozen=True)
class ArrayType:
  """An array of a program on one device.

  Attributes:
    space: the memory that holds it; 0 is a device's main memory.
  """

  dtype: str
  dims: tuple[int, ...]
  space: int = 0

  @property
  def elements(self) -> int:
    return math.prod(self.dims)

  @property
  def bytes(self) -> int:
    return math.ceil(self.elements * _element_bytes(self.dtype))

  @property
  def in_main_memory(self) -> bool:
    return self.space == _HBM


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program: what is computed from which operands.

  Attributes:
    types: of the result; several where it is a tuple.
    operands: names of the instructions that are read, in order.
    called: computations by their part in the call ("body", "calls", ...).
    attributes: the rest of the line.
  """

  name: str
  opcode: str
  types: tuple[ArrayType, ...]
  operands: tuple[str, ...]
  arguments: str
  called: Mapping[str, tuple[str, ...]]
  attributes: str
  is_root: bool

  @property
  def op_name(self) -> str:
    """Where in the traced function it comes from."""
    found = re.search(r'op_name="([^"]*)"', self.attributes)
    return found.group(1) if found else ""

  @property
  def target(self) -> str:
    """The function that a custom call names."""
    found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
    return found.group(1) if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
  """Instructions by name, in their order."""

  name: str
  instructions: Mapping[str, Instruction]

  @property
  def root(self) -> Instruction:
    return next(i for i in self.instructions.values() if i.is_root)

  def parameters(self) -> dict[int, Instruction]:
    """Parameters by number."""
    return {
      int(i.arguments): i
      for i in self.instructions.values()
      if i.opcode == "parameter"
    }


@dataclasses.dataclass(frozen=True)
class Loop:
  """A loop of a program; `trips` is None where its end depends on values."""

  name: str
  op_name: str
  trips: int | None


@dataclasses.dataclass(frozen=True)
class HloProgram:
  """A compiled program for one device."""

  computations: Mapping[str, Computation]
  entry: str

  def executed(
    self, unknown_trips: int = 1
  ) -> Iterator[tuple[Computation, int]]:
    """Each computation that runs instructions of its own, and how often.

    Fused computations belong to the instruction that calls them. Of the
    branches of a condition all are given: which one runs is not known.

    Args:
      unknown_trips: of loops whose end depends on values.
    """
    yield from self._executed(self.entry, 1, unknown_trips)

  def _executed(
    self, name: str, times: int, unknown_trips: int
  ) -> Iterator[tuple[Computation, int]]:
    computation = self.computations[name]
    yield computation, times
    for instruction in computation.instructions.values():
      called, inner = (), times
      if instruction.opcode == "while":
        trips = self.trips(computation, instruction)
        inner *= unknown_trips if trips is None else trips
        called = instruction.called.get("body", ())
      elif instruction.opcode in CALLS:
        called = sum(instruction.called.values(), ())
      for callee in called:
        yield from self._executed(callee, inner, unknown_trips)

  def loops(self) -> list[Loop]:
    """All loops, those in loops included."""
    return [
      Loop(i.name, i.op_name, self.trips(computation, i))
      for computation, _ in self.executed()
      for i in computation.instructions.values()
      if i.opcode == "while"
    ]

  def trips(self, computation: Computation, loop: Instruction) -> int | None:
    """How often a loop's body runs; None where that depends on values.

    The text states it, or the condition compares a counter, which starts from
    a constant and rises by a constant, with a constant. Any other has None.
    """
    stated = _TRIPS.search(loop.attributes)
    if stated:
      return int(stated.group(1))
    (condition,) = loop.called["condition"]
    limit = self._limit(self.computations[condition])
    given = computation.instructions[loop.operands[0]]
    if limit is None or given.opcode != "tuple":
      return None
    bound, index = limit
    start = _whole_number(source(computation, given.operands[index]))
    step = self._step(loop, index)
    if start is None or step is None:
      return None
    # A loop that the compiler has unrolled by two rises by two.
    return max(0, -(-(bound - start) // step))

  def _limit(self, condition: Computation) -> tuple[int, int] | None:
    """(bound, place of the counter) of a condition `counter < bound`."""
    root, values = self._last(condition, condition.root)
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
      return None
    place, bound = _place(values[0]), _whole_number(values[1])
    return None if place is None or bound is None else (bound, place)

  def _step(self, loop: Instruction, index: int) -> int | None:
    """What a loop's body adds to a counter; None: no positive constant."""
    (name,) = loop.called["body"]
    body = self.computations[name]
    if body.root.opcode != "tuple":
      return None
    after = source(body, body.root.operands[index])
    root, values = self._last(body, after)
    places = [_place(value) for value in values]
    steps = [n for n in map(_whole_number, values) if n is not None and n > 0]
    if root.opcode != "add" or index not in places or not steps:
      return None
    return steps[0]

  def _last(
    self, computation: Computation, instruction: Instruction
  ) -> tuple[Instruction, list[Instruction]]:
    """An instruction, or the last one of its fusion, and what it is given."""
    values = [source(computation, name) for name in instruction.operands]
    if instruction.opcode != "fusion":
      return instruction, values
    (fused,) = instruction.called["calls"]
    inner = self.computations[fused]
    numbers = {i.name: n for n, i in inner.parameters().items()}
    inside = [source(inner, name) for name in inner.root.operands]
    return inner.root, [
      values[numbers[i.name]] if i.name in numbers else i for i in inside
    ]


def source(computation: Computation, name: str) -> Instruction:
  """What a name stands for, copies and views left out."""
  instruction = computation.instructions[name]
  while instruction.opcode in _VIEWS:
    instruction = computation.instructions[instruction.operands[0]]
  return instruction


def _place(instruction: Instruction) -> int | None:
  """Which part of a tuple an instruction takes; None: it takes none."""
  if instruction.opcode != "get-tuple-element":
    return None
  place = re.search(r"\bindex=(\d+)", instruction.attributes)
  return int(place.group(1)) if place else None


def _whole_number(instruction: Instruction) -> int | None:
  """The value of a constant; None where it is none, or is no whole number."""
  if instruction.opcode != "constant":
    return None
  found = re.fullmatch(r"-?\d+", instruction.arguments.strip())
  whole = instruction.types[0].dtype[:1] in "su"
  return int(found.group()) if found and whole else None


def parse(text: str) -> HloProgram:
  """Reads the text of a compiled program.

  Raises:
    ValueError: it has no entry computation.
  """
  computations: dict[str, Computation] = {}
  entry, name, lines = "", "", None
  for line in text.splitlines():
    if lines is None:
      header = _HEADER.match(line)
      if header and not line.startswith("HloModule"):
        name, lines = header.group(2), []
        if header.group(1):
          entry = name
    elif line == "}" or line.startswith("}, execution_thread="):
      found = [_instruction(whole) for whole in lines]
      by_name = {i.name: i for i in found if i is not None}
      computations[name], lines = Computation(name, by_name), None
    elif line.startswith("  ") or not lines:
      lines.append(line)
    else:
      # Attributes may hold text of several lines.
      lines[-1] += line
  if not entry:
    raise ValueError("the text has no entry computation: it is no HLO module")
  return HloProgram(computations, entry)


def _instruction(line: str) -> Instruction | None:
  head, found, rest = line.strip().partition(" = ")
  if not found:
    return None
  is_root = head.startswith("ROOT ")
  if rest.startswith("("):
    end = _closing(rest, 0) + 1
    written, rest = rest[:end], rest[end:]
  else:
    written, _, rest = rest.partition(" ")
  opcode = _OPCODE.match(rest)
  if opcode is None:
    return None
  opening = opcode.end() - 1
  closing = _closing(rest, opening)
  arguments, attributes = rest[opening + 1 : closing], rest[closing + 1 :]
  called = {
    part: tuple(_NAME.findall(names))
    for part, names in _CALLED.findall(attributes)
  }
  return Instruction(
    name=head.removeprefix("ROOT ").lstrip("%"),
    opcode=opcode.group(1),
    types=_types(written),
    operands=tuple(_NAME.findall(arguments)),
    arguments=arguments,
    called=called,
    attributes=attributes,
    is_root=is_root,
  )


def _closing(text: str, opening: int) -> int:
  depth = 0
  for place in range(opening, len(text)):
    if text[place] == "(":
      depth += 1
    elif text[place] == ")":
      depth -= 1
      if depth == 0:
        return place
  return len(text) - 1


def _types(written: str) -> tuple[ArrayType, ...]:
  types = []
  for dtype, dims, layout in _ARRAY.findall(written):
    space = re.search(r"S\((\d+)\)", layout)
    types.append(
      ArrayType(
        dtype,
        tuple(int(d.lstrip("<= ")) for d in dims.split(",") if d.strip()),
        int(space.group(1)) if space else _HBM,
      )
    )
  return tuple(types)
