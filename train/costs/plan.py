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
from train.mesh import batch_shards, sharding_rules


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
  shards = batch_shards(mesh, sharding_rules(config))
  with fit.compiling(config, state, shards):
    compiled = step.compile(state, batch)
  costs = program_costs(compiled, state, mesh)
  chief = jax.process_index() == 0
  if chief:
    for line in summary(costs, mesh, pairs):
      logging.info("%s", line)
  limit = fit.memory_limit(jax.local_devices()[0])
  if limit is not None:
    fit.check_fits(costs.memory, limit, config, shards)
  elif chief:
    logging.info("a device here does not say how much memory it has")
