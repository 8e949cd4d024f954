"""The update: schedules, AdamW, and which parameters take part in it.

What happens to a parameter is decided by its path, never by its rank: stacked
biases have two or three dimensions.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from encdec.sharding import leaf_path
from encdec.types import Params

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]

OPTIMIZERS = ("adamw",)
SCHEDULES = ("constant", "linear", "cosine", "rsqrt", "noam")

# No loss reaches them: they are stored and exported as they were loaded.
_FROZEN = re.compile(r"(encoder|decoder)/pooler/.+")
# Matrices and tables; never biases and norms.
_DECAYED = re.compile(r"(.+/)?(kernel|embedding)")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """The section `optim` of a configuration.

  Attributes:
    lr: learning rate after warm-up; noam multiplies it by width^-0.5.
    warmup_steps: updates until the rate is whole; the first is not zero.
    clip_norm: largest global norm of the gradient; 0.0 does not clip.
  """

  name: str
  lr: float
  schedule: str
  warmup_steps: int
  b1: float
  b2: float
  eps: float
  weight_decay: float
  clip_norm: float

  def __post_init__(self):
    for key, value, known in (
      ("name", self.name, OPTIMIZERS),
      ("schedule", self.schedule, SCHEDULES),
    ):
      if value not in known:
        raise ValueError(
          f"optim.{key}={value!r} is unknown; it is one of {', '.join(known)}"
        )
    for key in ("lr", "warmup_steps", "weight_decay", "clip_norm"):
      value = getattr(self, key)
      if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"optim.{key}={value!r} must be finite and at least 0")
    for key in ("b1", "b2"):
      value = getattr(self, key)
      if not 0 <= value < 1:
        raise ValueError(f"optim.{key}={value!r} must lie in [0, 1)")
    if not (self.eps > 0 and math.isfinite(self.eps)):
      raise ValueError(f"optim.eps={self.eps!r} must be positive")


def make_schedule(optim: OptimConfig, total_steps: int, width: int) -> Schedule:
  """Learning rate of the update that follows `n` updates.

  All warm up linearly. "linear" and "cosine" fall to zero at `total_steps`,
  "rsqrt" as sqrt(warmup / n), "noam" is Vaswani et al. 2017, section 5.3, with
  the decoder's `width`.

  Raises ValueError where the warm-up leaves no step to "linear" and "cosine".
  """
  warmup = optim.warmup_steps
  if optim.schedule in ("linear", "cosine") and warmup >= total_steps:
    raise ValueError(
      f"optim.warmup_steps={warmup} leaves nothing of train.steps="
      f"{total_steps} to optim.schedule={optim.schedule!r}; lower it"
    )

  def schedule(n):
    n = jnp.asarray(n, jnp.float32)
    warm = jnp.minimum((n + 1) / max(warmup, 1), 1.0)
    done = jnp.clip((n - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
    after = jnp.maximum(n + 1, max(warmup, 1))
    factor = {
      "constant": lambda: warm,
      "linear": lambda: warm * (1 - done),
      "cosine": lambda: warm * 0.5 * (1 + jnp.cos(jnp.pi * done)),
      "rsqrt": lambda: warm * jnp.sqrt(max(warmup, 1) / after),
      "noam": lambda: warm * width**-0.5 * after**-0.5,
    }[optim.schedule]()
    return optim.lr * factor

  return schedule


def describe_schedule_change(
  optim: OptimConfig, old_steps: int, new_steps: int, step: int, width: int
) -> str | None:
  """What another `train.steps` does to the learning rate of a resumed run.

  Args:
    step: the updates that were done under `old_steps`.

  Returns:
    None where the next update has the rate that it would have had.
  """
  if optim.schedule not in ("linear", "cosine") or old_steps == new_steps:
    return None
  # A schedule's end lies after its warm-up, or it had none.
  before = make_schedule(optim, max(old_steps, optim.warmup_steps + 1), width)
  now = make_schedule(optim, new_steps, width)
  planned, rate = float(before(step)), float(now(step))
  if math.isclose(planned, rate, rel_tol=1e-6):
    return None
  return (
    f"train.steps: {old_steps} -> {new_steps} moves the end of optim.schedule="
    f"{optim.schedule!r}: the learning rate was {float(before(step - 1)):.3g} "
    f"at step {step} and would have been {planned:.3g} next; now it is "
    f"{rate:.3g}. For one schedule of {new_steps} steps begin in another "
    f"--workdir; to keep the old one set train.steps={old_steps}"
  )


def make_optimizer(
  optim: OptimConfig, schedule: Schedule
) -> optax.GradientTransformation:
  """AdamW with decoupled decay, after clipping by the global norm.

  It is given the trained leaves and their gradients alone, in float32.
  """
  clip = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
  chain = optax.chain(
    *clip,
    optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.eps),
    optax.add_decayed_weights(optim.weight_decay, mask=decayed),
    optax.scale_by_learning_rate(schedule),
  )

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    # Optax leaves to JAX's promotion what joins its count of updates.
    with jax.numpy_dtype_promotion("standard"):
      return chain.update(updates, state, params)

  return optax.GradientTransformation(chain.init, update)


def decayed(params: Params) -> Params:
  """Which leaves weight decay applies to, a tree of bool."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: bool(_DECAYED.fullmatch(leaf_path(path))), params
  )


def split_trained(params: Params) -> tuple[Params, Params]:
  """The leaves that are optimised, and those that never change."""
  flat = traverse_util.flatten_dict(params, sep="/")
  frozen = {path: leaf for path, leaf in flat.items() if _FROZEN.match(path)}
  trained = {path: leaf for path, leaf in flat.items() if path not in frozen}
  return (
    traverse_util.unflatten_dict(trained, sep="/"),
    traverse_util.unflatten_dict(frozen, sep="/"),
  )


def merge(trained: Params, frozen: Params) -> Params:
  """Both halves of `split_trained` in one tree again."""
  flat = traverse_util.flatten_dict(trained, sep="/")
  flat |= traverse_util.flatten_dict(frozen, sep="/")
  return traverse_util.unflatten_dict(flat, sep="/")
