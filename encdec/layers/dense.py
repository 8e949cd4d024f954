"""Dense layers, over one axis or several."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from encdec.layers.compute_config import ComputeConfig
from encdec.layers.matmul import skinny_matmul


class Dense(nn.Module):
  """kernel^T x + bias, over the last `axes` axes of x.

  In decoding form the kernel may be given as `transposed`, `O I`, all output
  and all input axes in one; see `encdec.generation.decode_params`.
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
      output = output.reshape(*rows, *self.features)
    else:
      kernel = self.param(
        "kernel",
        nn.initializers.normal(self.std),
        (*inner, *self.features),
        param_dtype,
      ).astype(dtype)
      own = tuple(range(self.axes))
      contract = tuple(len(rows) + axis for axis in own), own
      output = jax.lax.dot_general(inputs, kernel, (contract, ((), ())))
    bias = self.param(
      "bias", nn.initializers.zeros_init(), self.features, param_dtype
    ).astype(dtype)
    return output + bias.reshape((1,) * len(rows) + bias.shape)
