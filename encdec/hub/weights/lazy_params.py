"""A parameter tree whose tensors are still in their files, and reading it.

A leaf is filled from mapped files and handed on at once: loading needs memory
for the parameters and one leaf more.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Key

from encdec.hub.files.host_memory import aligned_zeros
from encdec.hub.files.lazy_tensors import Tensors, check_unchanged
from encdec.hub.weights.tensor_map import TensorMapping, tensor_mappings
from encdec.model import FlaxEncoderDecoderModule, init_params
from encdec.types import Params

# Takes a leaf's path and its values on the host, returns the leaf to store.
LeafPlacer = Callable[[str, np.ndarray], Any]


@dataclasses.dataclass(frozen=True)
class LazyParams:
  """Tensors that fit the stored tree of a module.

  Attributes:
    shapes: path to the leaf's shape and dtype.
    tensors: by their composite names; views of files where they can be.
    fresh: what is drawn, with `key`.
    sources: what the tensors were found in.
    device: the default one at that time.
  """

  module: FlaxEncoderDecoderModule
  shapes: Mapping[str, Any]
  tensors: Tensors
  fresh: tuple[TensorMapping, ...]
  key: Key[Array, ""]
  sources: tuple[Tensors, ...]
  device: Any

  def check(self) -> None:
    """Raises WeightFileError if a file has changed."""
    for tensors in self.sources:
      check_unchanged(tensors)

  def arrays(self) -> Params:
    """The tree as JAX's arrays on `device`, also where the caller is traced."""
    with jax.ensure_compile_time_eval(), jax.default_device(self.device):
      return self.tree(lambda path, leaf: jax.device_put(leaf))

  def tree(self, place: LeafPlacer | None = None) -> Params:
    """The stored tree, read leaf by leaf.

    Args:
      place: default: numpy arrays of the leaf's dtype.

    Raises:
      WeightFileError: a file has changed since.
    """
    self.check()
    drawn = _draw(self.module, self.key, {m.path for m in self.fresh})
    by_path: dict[str, list[TensorMapping]] = {}
    for mapping in tensor_mappings(self.module.config):
      if mapping.name in self.tensors and not mapping.second:
        by_path.setdefault(mapping.path, []).append(mapping)
    flat = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
      for path, shape in self.shapes.items():
        base = drawn.pop(path, None)
        if path not in by_path:
          leaf = np.asarray(base)
        else:
          leaf = aligned_zeros(shape.shape, shape.dtype)
          if base is not None:
            leaf[...] = base
          # One leaf at a time, so that memory holds no more than one.
          arrays = [self.tensors[m.name] for m in by_path[path]]
          list(
            pool.map(TensorMapping.fill, by_path[path], repeat(leaf), arrays)
          )
        del base
        flat[path] = leaf if place is None else place(path, leaf)
        del leaf
    return traverse_util.unflatten_dict(flat, sep="/")


def _draw(
  module: FlaxEncoderDecoderModule, key: Key[Array, ""], paths: set[str]
) -> dict[str, Array]:
  """Draws only those leaves of `init_params`; the compiler drops the others."""
  if not paths:
    return {}

  @jax.jit
  def draw(key):
    flat: dict[str, Any] = traverse_util.flatten_dict(
      init_params(module, key), sep="/"
    )
    return {path: flat[path] for path in sorted(paths)}

  return draw(key)
