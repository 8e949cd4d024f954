"""The compiled steps: one program a bucket, and never another."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

# Arrays, or their shapes.
Batch = Mapping[str, Array | np.ndarray | jax.ShapeDtypeStruct]


class CompiledSteps:
  """A jitted step, compiled once for each bucket when it first comes.

  A batch of another shape, or arrays that lie elsewhere than those that a
  program was compiled for, are errors: nothing compiles behind one's back.
  """

  def __init__(self, step: Any, buckets: Sequence[tuple[int, int]]):
    self.step = step
    self.buckets = tuple(buckets)
    self.programs: dict[tuple[int, int], Callable[..., Any]] = {}

  def check(self, state: Any, batch: Batch) -> None:
    """Traces the step for a batch's shape and compiles nothing.

    Raises:
      ValueError: the model or the mesh cannot do what is asked.
    """
    self.step.trace(state, batch)

  def compile(self, state: Any, batch: Batch) -> Any:
    """The program of a bucket, from shapes alone; it is the one that runs."""
    program = self.step.lower(state, batch).compile()
    self.programs[shape(batch)] = program
    return program

  def is_new(self, batch: Batch) -> bool:
    """Whether this batch will be compiled for."""
    return shape(batch) not in self.programs

  def __call__(self, state: Any, batch: Batch) -> Any:
    bucket = shape(batch)
    if bucket not in self.programs:
      if bucket not in self.buckets:
        raise RuntimeError(
          f"a batch of shape {bucket} came, the buckets are {self.buckets}: "
          "it would be compiled for inside the loop"
        )
      self.compile(state, batch)
    return self.programs[bucket](state, batch)


def shape(batch: Batch) -> tuple[int, int]:
  """(S, T) of a batch."""
  source, target = batch["encoder_tokens"], batch["decoder_inputs"]
  return source.shape[1], target.shape[1]
