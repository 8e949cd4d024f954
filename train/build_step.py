"""The program of a step: built of a configuration, a module and a mesh alone.

No run, tokenizer or data set is needed: what is lowered here for devices that
are not there yet is what a run compiles on them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from encdec.model import FlaxEncoderDecoderModule, param_shapes
from train.config import Config
from train.losses import LossConfig
from train.mesh import platform_of, sharding_rules
from train.optim.optimizer import Optimizer, check_groups, make_optimizer
from train.optim.settings import OptimConfig
from train.state import TrainState, abstract_state, state_shardings
from train.step import StepConfig, jit_train_step


@dataclasses.dataclass(frozen=True)
class StepProgram:
  """A jitted training step and what it takes; nothing is compiled yet.

  Attributes:
    step: `(state, batch) -> (state, metrics)`; call or lower it inside
      `jax.set_mesh(mesh)`.
    state: shapes, dtypes and shardings of the state.
  """

  step: Callable[..., Any]
  state: TrainState
  optimizer: Optimizer


def step_config(config: Config, pad_id: int = 0) -> StepConfig:
  """What the step reads of the section `train`.

  Args:
    pad_id: of the target side; any id makes the same program.

  Raises:
    ValueError: a value that no step can have; it names the key.
  """
  return StepConfig(
    seed=config.seed,
    accumulate_steps=config.train.accumulate_steps,
    loss=LossConfig(
      label_smoothing=config.train.label_smoothing,
      smoothing_form=config.train.smoothing_form,
      pad_id=pad_id,
      z_loss=config.train.z_loss,
      r_drop=config.train.r_drop,
    ),
    loss_chunks=config.train.loss_chunks,
    rng=config.train.rng,
  )


def build_step(
  config: Config,
  module: FlaxEncoderDecoderModule,
  mesh: Mesh,
  pad_id: int = 0,
) -> StepProgram:
  """The training step of `config` for a module on a mesh; see `step_config`."""
  module = module.clone(platform=platform_of(mesh))
  rules = sharding_rules(config)
  optim = OptimConfig(**config.optim.to_dict())
  width = module.config.decoder.width
  lora = module.config.lora
  optimizer = make_optimizer(optim, config.train.steps, width, lora)
  check_groups(optimizer, param_shapes(module))
  state = abstract_state(module, optimizer, mesh, rules)
  step = jit_train_step(
    module=module,
    optimizer=optimizer,
    config=step_config(config, pad_id),
    mesh=mesh,
    rules=rules,
    shardings=state_shardings(state),
  )
  return StepProgram(step, state, optimizer)
