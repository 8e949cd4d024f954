"""Activations are those of transformers, name by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.activations import ACT2CLS, ACT2FN

from encdec.layers.activations import ACTIVATIONS, activation

# These hold parameters.
MORE = {"prelu", "xielu"}


def test_every_name_that_holds_no_parameters_is_known():
  assert set(ACTIVATIONS) == set(ACT2CLS) - MORE
  for name in MORE:
    with pytest.raises(ValueError, match=f"activation '{name}' is not one of"):
      activation(name)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_and_slopes_are_pytorchs(name):
  x = np.concatenate([np.linspace(-12, 12, 481), [-40.0, 25.0, 60.0]])
  # Slopes jump at 0 and at the ends of what is cut off.
  x = (x + 1e-3).astype(np.float32)
  theirs = torch.tensor(x, requires_grad=True)
  values = ACT2FN[name](theirs)
  values.sum().backward()
  assert theirs.grad is not None
  ours, slopes = jax.vmap(jax.value_and_grad(activation(name)))(jnp.asarray(x))
  np.testing.assert_allclose(ours, values.detach(), rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(slopes, theirs.grad, rtol=1e-5, atol=1e-5)
  half = jnp.asarray(x, jnp.bfloat16)
  with jax.numpy_dtype_promotion("strict"):
    assert activation(name)(half).dtype == jnp.bfloat16
