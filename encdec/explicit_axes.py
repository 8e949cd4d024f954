"""The types of a mesh's axes: which arrays the model cannot be given."""

from typing import Any

import jax
from jaxtyping import Array

from encdec.sharding import leaf_path


def check(arrays: Any) -> None:
  """Raises ValueError where an array is split over an axis of type Explicit.

  It is the compiler that decides where activations are, along Auto axes. What
  is whole on every device may be on any mesh.

  Args:
    arrays: a tree, traced or not, whose paths name its leaves in the message.
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
    if not isinstance(leaf, Array):
      continue
    placed: Any = jax.typeof(leaf).sharding
    split = {
      axis
      for part in placed.spec
      for axis in (part if isinstance(part, tuple) else (part,))
    }
    explicit = [axis for axis in placed.mesh.explicit_axes if axis in split]
    if explicit:
      raise ValueError(
        f"{leaf_path(path)} is split over {', '.join(map(repr, explicit))}, of "
        "type Explicit, which is JAX's default; make the mesh by "
        "jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * "
        f"{len(placed.mesh.axis_names)})"
      )
