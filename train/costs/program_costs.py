"""All that a compiled program costs, measured from its text and its memory."""

import dataclasses
from typing import Any

from jax.sharding import Mesh

from train.costs import hlo
from train.costs.chips import Chip, chip_of
from train.costs.collectives import Collective, collectives
from train.costs.hlo import Loop
from train.costs.memory import Memory, memory_of
from train.costs.roofline import Roofline, roofline
from train.costs.work import Work, work


@dataclasses.dataclass(frozen=True)
class ProgramCosts:
  """One run of a program on each device of a mesh.

  Attributes:
    loops: those of the program.
    roofline: None where the chip's figures are not known.
    unknown_trips: with which loops were counted whose trips are None.
  """

  memory: Memory
  work: Work
  collectives: tuple[Collective, ...]
  loops: tuple[Loop, ...]
  chip: Chip | None
  roofline: Roofline | None
  unknown_trips: int = 1


def program_costs(
  compiled: Any, state: Any, mesh: Mesh, unknown_trips: int = 1
) -> ProgramCosts:
  """Measures a compiled program; see `memory_of` for the arguments.

  Args:
    unknown_trips: of loops whose end depends on values, as of a search.
  """
  program = hlo.parse(compiled.as_text())
  found = collectives(program, mesh, unknown_trips)
  done = work(program, unknown_trips)
  chip = chip_of(mesh.devices.flat[0])
  roof = None
  if chip is not None:
    roof = roofline(done, found, chip, mesh.devices)
  return ProgramCosts(
    memory=memory_of(compiled, program, state),
    work=done,
    collectives=tuple(found),
    loops=tuple(program.loops()),
    chip=chip,
    roofline=roof,
    unknown_trips=unknown_trips,
  )
