"""Arrays of the host beside those of devices.

What a caller gives as numpy's is prepared as numpy's: on a device each small
step would be a program of its own, compiled for every new shape.
"""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

if TYPE_CHECKING:
  # The two have no methods in common that a type could name.
  Held = Any
else:
  Held = Array | np.ndarray


def numpy_of(*arrays: Any) -> Any:
  """`jax.numpy` where an array is JAX's, else numpy."""
  return jnp if any(isinstance(array, Array) for array in arrays) else np
