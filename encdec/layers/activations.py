"""Activations, by Hugging Face's names."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array


def _gelu_exact(x: Array) -> Array:
  # PyTorch's form. By erfc, as jax.nn.gelu has it, it takes three times as
  # long on a CPU.
  half = jnp.asarray(0.5, x.dtype)
  scale = jnp.asarray(2**-0.5, x.dtype)
  return half * x * (1 + jax.lax.erf(x * scale))


def _gelu_tanh(x: Array) -> Array:
  return jax.nn.gelu(x, approximate=True)


def _quick_gelu(x: Array) -> Array:
  return x * jax.nn.sigmoid(1.702 * x)


def _laplace(x: Array) -> Array:
  # With PyTorch's mean and deviation.
  return 0.5 * (1.0 + jax.lax.erf((x - 0.707107) / (0.282095 * 2**0.5)))


# Hugging Face's names; those that it has besides hold parameters.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "gelu": _gelu_exact,
  "gelu_10": lambda x: jnp.clip(_gelu_exact(x), -10.0, 10.0),
  "gelu_accurate": _gelu_tanh,
  "gelu_fast": _gelu_tanh,
  "gelu_new": _gelu_tanh,
  "gelu_python": _gelu_exact,
  "gelu_python_tanh": _gelu_tanh,
  "gelu_pytorch_tanh": _gelu_tanh,
  "hardswish": jax.nn.hard_swish,
  "laplace": _laplace,
  "leaky_relu": jax.nn.leaky_relu,
  "linear": lambda x: x,
  "mish": jax.nn.mish,
  "quick_gelu": _quick_gelu,
  "relu": jax.nn.relu,
  "relu2": lambda x: jnp.square(jax.nn.relu(x)),
  "relu6": jax.nn.relu6,
  "sigmoid": jax.nn.sigmoid,
  "silu": jax.nn.silu,
  "sqrtsoftplus": lambda x: jnp.sqrt(jax.nn.softplus(x)),
  "swish": jax.nn.silu,
  "tanh": jnp.tanh,
}


def activation(name: str) -> Callable[[Array], Array]:
  """The function of that name; an unknown one raises with the known ones."""
  if name not in ACTIVATIONS:
    raise ValueError(
      f"activation {name[:60]!r} is not one of {', '.join(sorted(ACTIVATIONS))}"
    )
  return ACTIVATIONS[name]
