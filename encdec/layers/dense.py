"""Dense layers, over one axis or several."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from encdec.layers.compute_config import ComputeConfig
from encdec.layers.matmul import skinny_matmul


class Dense(nn.Module):
  """kernel^T x + bias, over the last `axes` axes of x.

  The kernel may be given as a matrix, all input and all output axes in one:
  as `matrix`, `I O`, by a scan over layers, and as `transposed`, `O I`, in
  decoding form; see `encdec.generation.decode_params`.
  """

  features: tuple[int, ...]
  compute: ComputeConfig
  std: float
  axes: int = 1

  @nn.compact
  def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "..."]:
    dtype = jnp.dtype(self.compute.dtype)
    param_dtype = self.compute.param_dtype
    inputs = inputs.astype(dtype)
    rows, inner = inputs.shape[: -self.axes], inputs.shape[-self.axes :]
    if self.has_variable("params", "transposed"):
      kernel = self.get_variable("params", "transposed").astype(dtype)
      inputs = inputs.reshape(*rows, kernel.shape[1])
      contract = ((len(rows),), (1,))
      output = skinny_matmul(
        inputs, kernel, (contract, ((), ())), dtype, self.compute.platform
      )
    else:
      # Products of matrices: heads and their width as one axis, which a TPU
      # stores without filling narrow heads up.
      kernel = self._matrix(inner, dtype)
      inputs = inputs.reshape(*rows, kernel.shape[0])
      contract = ((len(rows),), (0,))
      output = jax.lax.dot_general(inputs, kernel, (contract, ((), ())))
    bias = self.param(
      "bias", nn.initializers.zeros_init(), self.features, param_dtype
    ).astype(dtype)
    output = output + bias.reshape((1,) * len(rows) + (-1,))
    return output.reshape(*rows, *self.features)

  def _matrix(self, inner: tuple[int, ...], dtype: Any) -> Float[Array, "I O"]:
    if self.has_variable("params", "matrix"):
      return jnp.asarray(self.get_variable("params", "matrix"), dtype)
    kernel = self.param(
      "kernel",
      nn.initializers.normal(self.std),
      (*inner, *self.features),
      self.compute.param_dtype,
    )
    kernel = jnp.asarray(kernel, dtype)
    return kernel.reshape(math.prod(inner), math.prod(self.features))
