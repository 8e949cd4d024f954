"""The step that a run is about to take: compiled, described, checked."""

from collections.abc import Mapping
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from train.compiled_steps import CompiledSteps
from train.config import Config
from train.costs import fit
from train.costs.program_costs import program_costs
from train.costs.report import summary


def compile_step(
  step: CompiledSteps,
  state: Any,
  batch: Mapping[str, jax.ShapeDtypeStruct],
  *,
  config: Config,
  mesh: Mesh,
  pairs: float | int,
) -> None:
  """Compiles for a batch before anything is allocated, and says what it costs.

  Args:
    state: shapes and shardings of the state.
    pairs: in a batch.

  Raises:
    Refusal: the memory of a device does not hold it; the message names flags.
  """
  logging.info("the step compiles; that takes a while")
  with fit.compiling(config, state, mesh):
    compiled = step.compile(state, batch)
  chief = jax.process_index() == 0
  try:
    costs = program_costs(compiled, state, mesh)
  except Exception as error:
    # The text of a program is no interface of a compiler: a run that has
    # compiled does not end because it reads otherwise on other hardware.
    logging.warning("what the step costs is not known (%r)", error)
    return
  if chief:
    for line in summary(costs, mesh, pairs):
      logging.info("%s", line)
  limit = fit.memory_limit(jax.local_devices()[0])
  if limit is not None:
    fit.check_fits(costs.memory, limit, config, mesh)
  elif chief:
    logging.info("a device here does not say how much memory it has")
