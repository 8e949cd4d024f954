"""Layer normalisation with float32 statistics."""

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from encdec.config import StackConfig
from encdec.layers.compute_config import ComputeConfig


class LayerNorm(nn.LayerNorm):
  """Flax's, also where the caller has JAX promote no dtypes."""

  def __call__(
    self, x: Float[Array, "... D"], *, mask: Array | None = None
  ) -> Float[Array, "... D"]:
    # It leaves to JAX's promotion what joins the float32 statistics.
    with jax.numpy_dtype_promotion("standard"):
      return super().__call__(x, mask=mask)


def layer_norm(config: StackConfig, compute: ComputeConfig) -> nn.LayerNorm:
  """A norm as the architecture declares it.

  Variance is E[(x - E x)^2]: the faster E[x^2] - E[x]^2 loses the digits that
  agreement with PyTorch needs.
  """
  return LayerNorm(
    epsilon=config.norm_epsilon,
    dtype=compute.dtype,
    param_dtype=compute.param_dtype,
    use_fast_variance=False,
    force_float32_reductions=True,
    scale_init=nn.initializers.ones_init(),
    bias_init=nn.initializers.zeros_init(),
  )
