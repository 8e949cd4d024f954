"""The optimizer: what of a model is trained, by which rule, at which rate.

What happens to a parameter is decided by its path, never by its rank: stacked
biases have two or three dimensions.
"""

import dataclasses
import re
from typing import Any

import jax
import optax
from flax import traverse_util

from encdec.types import Params
from train.optim.schedules import Schedule, make_schedule
from train.optim.settings import OptimConfig
from train.optim.update_rules import update_rule

# No loss reaches them: they are stored and exported as they were loaded.
_UNREACHED = re.compile(r"(encoder|decoder)/pooler/.+")


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """What is trained, and the update of it.

  Attributes:
    tx: is given the trained leaves and their gradients alone, in float32.
    schedule: the learning rate.
  """

  tx: optax.GradientTransformation
  schedule: Schedule

  def split(self, params: Params) -> tuple[Params, Params]:
    """The leaves that are optimised, and those that never change."""
    flat = traverse_util.flatten_dict(params, sep="/")
    frozen = {p: leaf for p, leaf in flat.items() if _UNREACHED.match(p)}
    trained = {path: leaf for path, leaf in flat.items() if path not in frozen}
    return (
      traverse_util.unflatten_dict(trained, sep="/"),
      traverse_util.unflatten_dict(frozen, sep="/"),
    )


def merge(trained: Params, frozen: Params) -> Params:
  """Both halves of `Optimizer.split` in one tree again."""
  flat = traverse_util.flatten_dict(trained, sep="/")
  flat |= traverse_util.flatten_dict(frozen, sep="/")
  return traverse_util.unflatten_dict(flat, sep="/")


def make_optimizer(
  optim: OptimConfig, total_steps: int, width: int
) -> Optimizer:
  """The optimizer of a run of `total_steps`, after clipping by global norm.

  Args:
    width: the decoder's, of which "noam" makes its rate.
  """
  schedule = make_schedule(optim, total_steps, width)
  clip = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
  chain = optax.chain(
    *clip, *update_rule(optim), optax.scale_by_learning_rate(schedule)
  )

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    # Optax leaves to JAX's promotion what joins its count of updates.
    with jax.numpy_dtype_promotion("standard"):
      return chain.update(updates, state, params)

  return Optimizer(optax.GradientTransformation(chain.init, update), schedule)
