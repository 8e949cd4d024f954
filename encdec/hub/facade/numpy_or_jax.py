"""Arrays that are numpy's or JAX's, and which of the two computes with them.

A caller's numpy arrays are prepared with numpy: on a device each small step
would be a program of its own, compiled for every new shape.
"""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

if TYPE_CHECKING:
  # The two have no methods in common that a type could name.
  AnyArray = Any
else:
  AnyArray = Array | np.ndarray


def array_module(*arrays: Any) -> Any:
  """`jax.numpy` where an array is JAX's, else numpy."""
  return jnp if any(isinstance(array, Array) for array in arrays) else np
