"""Moving averages of parameters, evaluated and exported in their place."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Int

from encdec.types import Params


def begin(trained: Params) -> Params:
  """The averages before the first update: a copy, in float32."""
  # Without a copy a step would be given one buffer twice, and takes both.
  return jax.tree.map(lambda leaf: jnp.copy(leaf.astype(jnp.float32)), trained)


def move(
  average: Params, trained: Params, step: Int[Array, ""], decay: float
) -> Params:
  """The averages after an update.

  Args:
    trained: the parameters after it.
    step: the updates done before it: n of the warm-up, in which the decay is
      (1 + n) / (10 + n), where that is less.
  """
  n = step.astype(jnp.float32)
  share = 1.0 - jnp.minimum(decay, (1.0 + n) / (10.0 + n))
  # Written so that what does not move keeps its bits.
  return jax.tree.map(
    lambda old, new: old + share * (new.astype(jnp.float32) - old),
    average,
    trained,
  )


def averaged(params: Params, average: Params | None) -> Params:
  """Parameters with their averages, as they are stored; what has none stays."""
  if average is None:
    return params
  flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
  moved: dict[str, Any] = traverse_util.flatten_dict(average, sep="/")
  # Of parameters in float32 nothing is copied.
  moved |= {
    path: leaf.astype(flat[path].dtype)
    for path, leaf in moved.items()
    if leaf.dtype != flat[path].dtype
  }
  return traverse_util.unflatten_dict(flat | moved, sep="/")


def abstract_average(saved: Mapping[str, Any], params: Params) -> Params:
  """Shapes and places of saved averages.

  Args:
    saved: a tree that has the paths of those that were saved.
    params: the ShapeDtypeStructs of all parameters.
  """
  flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
  paths = set(flat) & set(traverse_util.flatten_dict(saved, sep="/"))
  found = {
    path: jax.ShapeDtypeStruct(
      flat[path].shape, jnp.float32, sharding=flat[path].sharding
    )
    for path in sorted(paths)
  }
  return traverse_util.unflatten_dict(found, sep="/")
