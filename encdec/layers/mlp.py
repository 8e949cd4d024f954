"""The position-wise feed-forward layer."""

from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Key

from encdec import sharding
from encdec.config import StackConfig
from encdec.layers import dropout as dropout_lib
from encdec.layers.activations import activation
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.dense import Dense


class Mlp(nn.Module):
  """down(dropout(activation(up(x))))."""

  config: StackConfig
  compute: ComputeConfig

  @nn.compact
  def __call__(
    self,
    states: Float[Array, "B T D"],
    dropout_key: Key[Array, ""] | None = None,
  ) -> Float[Array, "B T D"]:
    c, rules = self.config, self.compute.rules
    up = Dense((c.mlp_width,), self.compute, c.init_std, name="up")
    hidden = sharding.constrain(up(states), ("batch", None, "mlp"), rules)
    hidden = checkpoint_name(hidden, "mlp")
    hidden = activation(c.activation)(hidden)
    hidden = dropout_lib.dropout(
      hidden, dropout_key, c.activation_dropout, rules
    )
    std = c.init_std * c.residual_init_scale
    return Dense((c.width,), self.compute, std, name="down")(hidden)
