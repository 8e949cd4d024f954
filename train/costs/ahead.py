"""The step of a configuration, compiled for devices that need not be here."""

import dataclasses
import time
from typing import Any

import jax
from jax.sharding import Mesh

from data.collate import abstract_batch
from encdec.model import FlaxEncoderDecoderModule
from train.build_step import build_step
from train.config import Config
from train.costs import fit
from train.costs.program_costs import ProgramCosts, program_costs
from train.mesh import check_batch_size, sharding_rules
from train.setting_names import naming

Shape = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class AheadOfTime:
  """A compiled program, what it costs, and the seconds that compiling took."""

  compiled: Any
  costs: ProgramCosts
  seconds: float


def compile_step(
  config: Config, module: FlaxEncoderDecoderModule, mesh: Mesh, shape: Shape
) -> AheadOfTime:
  """Compiles the training step for a mesh, without arrays.

  Args:
    shape: (S, T) of a batch.

  Raises:
    ValueError: the model or the mesh cannot do what the configuration asks, or
      it does not fit the memory of a device.
  """
  rows, parts = config.train.batch_size, config.train.accumulate_steps
  rules = sharding_rules(config)
  check_batch_size("train.batch_size", rows, parts, mesh, rules)
  program = build_step(config, module, mesh)
  batch = abstract_batch(shape, rows, types=bool(config.data.source_types))
  begun = time.monotonic()
  with (
    naming(attention="model.attention", remat="model.remat"),
    fit.compiling(config, program.state, mesh),
    jax.set_mesh(mesh),
  ):
    traced = program.step.trace(program.state, batch)
    compiled = lower_and_compile(traced, mesh)
  seconds = time.monotonic() - begun
  costs = program_costs(compiled, program.state, mesh)
  if costs.chip is not None:
    # A TPU's compiler refuses by itself what does not fit, a GPU's does not.
    fit.check_fits(costs.memory, round(costs.chip.memory), config, mesh)
  return AheadOfTime(compiled, costs, seconds)


def lower_and_compile(traced: Any, mesh: Mesh) -> Any:
  """Compiles what was traced for devices that are of no backend here."""
  platform = mesh.devices.flat[0].platform
  if platform != "gpu":
    return traced.lower(lowering_platforms=(platform,)).compile()
  # JAX lowers for a maker's GPUs. Without one to measure on, Triton's products
  # get tiles that not every shape has; cuBLAS takes all.
  return traced.lower(lowering_platforms=("cuda",)).compile(
    {"xla_gpu_enable_triton_gemm": False}
  )
