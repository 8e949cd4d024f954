"""Schedules: the learning rate of each update."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from train.optim.settings import OptimConfig

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]

# Those that fall to zero at the end of a run.
ENDING = ("linear", "cosine", "wsd")


def make_schedule(optim: OptimConfig, total_steps: int, width: int) -> Schedule:
  """Learning rate of the update that follows `n` updates.

  All warm up linearly. "linear" and "cosine" fall to zero at `total_steps`;
  "wsd" (Hu et al. 2024) does so, linearly, in the last `decay_steps`; "rsqrt"
  falls as sqrt(warmup / n). "noam" is Vaswani et al. 2017, section 5.3, with
  the decoder's `width`; "noam_unscaled", without width^-0.5, is Liu and Lapata
  2019, section 4: its highest rate is lr / sqrt(warmup).

  Raises ValueError where the warm-up leaves no step to one that falls to zero.
  """
  warmup = optim.warmup_steps
  if optim.schedule in ENDING and _least_steps(optim) > total_steps:
    too_long = f"optim.warmup_steps={warmup} leaves nothing"
    if optim.schedule == "wsd":
      too_long = f"optim.decay_steps={optim.decay_steps} is more than " + (
        f"optim.warmup_steps={warmup} leaves"
      )
    raise ValueError(
      f"{too_long} of train.steps={total_steps} to optim.schedule="
      f"{optim.schedule!r}; lower it"
    )

  def schedule(n):
    n = jnp.asarray(n, jnp.float32)
    warm = jnp.minimum((n + 1) / max(warmup, 1), 1.0)
    start = warmup
    if optim.schedule == "wsd":
      start = total_steps - optim.decay_steps
    done = jnp.clip((n - start) / max(total_steps - start, 1), 0.0, 1.0)
    after = jnp.maximum(n + 1, max(warmup, 1))
    factor = {
      "constant": lambda: warm,
      "linear": lambda: warm * (1 - done),
      "cosine": lambda: warm * 0.5 * (1 + jnp.cos(jnp.pi * done)),
      "wsd": lambda: warm * (1 - done),
      "rsqrt": lambda: warm * jnp.sqrt(max(warmup, 1) / after),
      "noam": lambda: warm * width**-0.5 * after**-0.5,
      "noam_unscaled": lambda: warm * after**-0.5,
    }[optim.schedule]()
    return optim.lr * factor

  return schedule


def _least_steps(optim: OptimConfig) -> int:
  """The shortest run that a schedule which falls to zero fits into."""
  if optim.schedule == "wsd":
    return optim.warmup_steps + optim.decay_steps
  return optim.warmup_steps + 1


def describe_schedule_change(
  optim: OptimConfig, old_steps: int, new_steps: int, step: int, width: int
) -> str | None:
  """What another `train.steps` does to the learning rate of a resumed run.

  "wsd" that is extended before its decay goes on at its stable rate; one whose
  decay has begun jumps back to it.

  Args:
    step: the updates that were done under `old_steps`.

  Returns:
    None where the next update has the rate that it would have had.
  """
  if optim.schedule not in ENDING or old_steps == new_steps:
    return None
  # A schedule's end lies after its warm-up, or it had none.
  before = make_schedule(optim, max(old_steps, _least_steps(optim)), width)
  now = make_schedule(optim, new_steps, width)
  planned, rate = float(before(step)), float(now(step))
  if math.isclose(planned, rate, rel_tol=1e-6):
    return None
  remedy = f"For one schedule of {new_steps} steps begin in another --workdir"
  if optim.schedule == "wsd" and new_steps > old_steps:
    remedy = (
      f"Its decay began at step {old_steps - optim.decay_steps}: a run whose "
      "newest checkpoint is of before then goes on without a jump"
    )
  return (
    f"train.steps: {old_steps} -> {new_steps} moves the end of optim.schedule="
    f"{optim.schedule!r}: the learning rate was {float(before(step - 1)):.3g} "
    f"at step {step} and would have been {planned:.3g} next; now it is "
    f"{rate:.3g}. {remedy}; to keep the old one set train.steps={old_steps}"
  )
