"""The platform that a module's programs are compiled for, and its cores.

A module is told both when it is built: nothing that JAX traces asks the running
machine, so that a program for a pod is traced on any machine.
"""

import os
from typing import Any

import jax
from jax.core import Tracer

PLATFORMS = ("cpu", "gpu", "tpu")
# What JAX calls a GPU in some versions and places.
_ALIASES = {"cuda": "gpu", "rocm": "gpu"}


def named(name: str) -> str:
  """The platform that JAX calls `name`: "cpu", "gpu" or "tpu".

  Raises:
    ValueError: it is none of them.
  """
  found = _ALIASES.get(name, name)
  if found not in PLATFORMS:
    raise ValueError(f"platform {name!r} is not one of {', '.join(PLATFORMS)}")
  return found


def running() -> str:
  """The platform of JAX's default backend."""
  return named(jax.default_backend())


def of_arrays(tree: Any) -> str:
  """The platform of the devices that hold `tree`; without any, `running()`."""
  for leaf in jax.tree.leaves(tree):
    if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
      return named(next(iter(leaf.devices())).platform)
  return running()


def cores() -> int:
  """How many CPU cores this machine has."""
  return os.cpu_count() or 1
