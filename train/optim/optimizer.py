"""The optimizer: what of a model is trained, by which rule, at which rate.

What happens to a parameter is decided by its path, never by its rank: stacked
biases have two or three dimensions.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jaxtyping import Array, Int

from encdec.adapters import LoraConfig
from encdec.sharding import leaf_path
from encdec.types import Params
from train.optim.groups import Group, check, group_of, parse
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
    schedules: learning rates of the groups by their patterns, "" being that of
      all else.
    groups, ema_decay: see `OptimConfig`.
    lora: the model's adapters, which leave the base as it is.
  """

  tx: optax.GradientTransformation
  schedules: Mapping[str, Schedule]
  groups: tuple[Group, ...] = ()
  ema_decay: float = 0.0
  lora: LoraConfig | None = None

  def split(self, params: Params) -> tuple[Params, Params]:
    """The leaves that are optimised, and those that never change."""
    flat = traverse_util.flatten_dict(params, sep="/")
    frozen = {path: x for path, x in flat.items() if self._is_frozen(path)}
    trained = {path: x for path, x in flat.items() if path not in frozen}
    return (
      traverse_util.unflatten_dict(trained, sep="/"),
      traverse_util.unflatten_dict(frozen, sep="/"),
    )

  def _is_frozen(self, path: str) -> bool:
    group = group_of(path, self.groups)
    return _is_constant(path, self.lora) or bool(group and group.frozen)

  def hold(self, grads: Params, step: Int[Array, ""]) -> Params:
    """Gradients, zero where a group is still frozen after `step` updates."""

    def held(path: Any, grad: Array) -> Array:
      group = group_of(leaf_path(path), self.groups)
      if group is None or not group.frozen_steps:
        return grad
      return jnp.where(step < group.frozen_steps, 0.0, grad)

    return jax.tree_util.tree_map_with_path(held, grads)

  def learning_rates(self, step: Int[Array, ""]) -> dict[str, Array]:
    """`lr`, and `lr/<pattern>` of each group: zero where it is frozen."""
    rates = {"lr": self.schedules[""](step)}
    for group in self.groups:
      if not group.frozen:
        rate = self.schedules[group.pattern](step)
        rate = jnp.where(step < group.frozen_steps, 0.0, rate)
        rates[f"lr/{group.pattern}"] = rate
    return rates


def _is_constant(path: str, lora: LoraConfig | None) -> bool:
  """Whether no group can train a parameter."""
  is_base = lora is not None and lora.is_base(path)
  return is_base or bool(_UNREACHED.match(path))


def check_groups(optimizer: Optimizer, shapes: Params) -> None:
  """Raises ValueError where groups do not fit a model's parameters."""
  paths = traverse_util.flatten_dict(shapes, sep="/")
  reached = [path for path in paths if not _is_constant(path, optimizer.lora)]
  check(optimizer.groups, reached)


def merge(trained: Params, frozen: Params) -> Params:
  """Both halves of `Optimizer.split` in one tree again."""
  flat = traverse_util.flatten_dict(trained, sep="/")
  flat |= traverse_util.flatten_dict(frozen, sep="/")
  return traverse_util.unflatten_dict(flat, sep="/")


def make_optimizer(
  optim: OptimConfig,
  total_steps: int,
  width: int,
  lora: LoraConfig | None = None,
) -> Optimizer:
  """The optimizer of a run of `total_steps`, after clipping by global norm.

  Args:
    width: the decoder's, of which "noam" makes its rate.
    lora: the model's adapters.
  """
  groups = parse(optim.groups)
  schedules = _schedules(optim, total_steps, width)
  clip = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
  if len(schedules) > 1:
    rule = [_by_group(optim, schedules, groups)]
  else:
    rate = optax.scale_by_learning_rate(schedules[""])
    rule = [*update_rule(optim), rate]
  chain = optax.chain(*clip, *rule)

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    # Optax leaves to JAX's promotion what joins its count of updates.
    with jax.numpy_dtype_promotion("standard"):
      return chain.update(updates, state, params)

  tx = optax.GradientTransformation(chain.init, update)
  return Optimizer(tx, schedules, groups, optim.ema_decay, lora)


def _schedules(
  optim: OptimConfig, total_steps: int, width: int
) -> dict[str, Schedule]:
  schedules = {}
  for pattern, own in optim.by_pattern().items():
    try:
      schedules[pattern] = make_schedule(own, total_steps, width)
    except ValueError as error:
      where = f"optim.groups: {pattern!r}: " if pattern else ""
      raise ValueError(f"{where}{error}") from error
  return schedules


def _begun(start: int) -> Any:
  """Whether `start` updates are done."""
  return lambda step, **unused: step >= start


def _by_group(
  optim: OptimConfig, schedules: Mapping[str, Schedule], groups: Sequence[Group]
) -> optax.GradientTransformation:
  """The update of every group by its own settings."""
  names = {group.pattern: f"group_{n}" for n, group in enumerate(groups, 1)}
  names[""] = "default"
  starts = {group.pattern: group.frozen_steps for group in groups}
  rules = {}
  for pattern, own in optim.by_pattern().items():
    rule = optax.chain(*update_rule(own))
    if start := starts.get(pattern, 0):
      rule = optax.conditionally_mask(rule, _begun(start))
    # Outside, for a schedule counts all updates.
    rate = optax.scale_by_learning_rate(schedules[pattern])
    rules[names[pattern]] = optax.chain(rule, rate)

  def name(path: Any, leaf: Any) -> str:
    group = group_of(leaf_path(path), groups)
    return names[group.pattern if group else ""]

  return optax.partition(
    rules, lambda params: jax.tree_util.tree_map_with_path(name, params)
  )
