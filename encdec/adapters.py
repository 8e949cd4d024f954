"""Low-rank adapters of layers' kernels: LoRA, and DoRA.

An adapter's leaves stand beside the kernel in the stored tree; `merge`
composes both to the kernel that is applied. What is composed are weights, so
that there is no dropout on an adapter's input. The leaves are float32 over
kernels of any dtype, which would lose the small updates.
"""

import dataclasses
import fnmatch
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float, Key

from encdec.types import Params

A, B, MAGNITUDE = "lora_a", "lora_b", "dora_magnitude"
LEAVES = (A, B, MAGNITUDE)

_ADAPTABLE = re.compile(
  r"(encoder|decoder)/layers/\w+/(query|key|value|out|up|gate|down)"
)
# Between widths, and never pretrained.
_PROJECTION = "enc_to_dec_proj/"


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """Which kernels have adapters, and what is trained beside them.

  Patterns are globs whose "*" matches "/" too.

  Attributes:
    rank: of the product that is added to a kernel.
    alpha: the product is multiplied by `alpha / rank`.
    targets: patterns of stored paths without "/kernel", such as "*/query".
    dora: a kernel's columns have lengths that are trained on their own (Liu et
      al. 2024).
    unfrozen: patterns of stored paths; these leaves are trained whole, and
      have no adapters.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...]
  dora: bool = False
  unfrozen: tuple[str, ...] = ()

  def __post_init__(self):
    if self.rank < 1:
      raise ValueError(f"model.lora_rank={self.rank} must be at least 1")
    if not (self.alpha > 0 and math.isfinite(self.alpha)):
      raise ValueError(
        f"model.lora_alpha={self.alpha} must be finite and above 0"
      )
    if not self.targets:
      raise ValueError(
        "model.lora_targets is empty: name kernels, such as ('*/query',)"
      )

  @property
  def scale(self) -> float:
    return self.alpha / self.rank

  def is_base(self, path: str) -> bool:
    """Whether the leaf at a stored path stays as it was before training."""
    return not (
      path.rpartition("/")[2] in LEAVES
      or path.startswith(_PROJECTION)
      or self.trains_whole(path)
    )

  def trains_whole(self, path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, one) for one in self.unfrozen)


def adapted(paths: Iterable[str], lora: LoraConfig) -> list[str]:
  """The modules that get adapters, of a stored tree with these leaves.

  Raises:
    ValueError: a pattern matches nothing, or what is no kernel of a layer.
  """
  paths = [p for p in paths if p.rpartition("/")[2] not in LEAVES]
  modules = sorted({path.rpartition("/")[0] for path in paths})
  result: set[str] = set()
  for pattern in lora.targets:
    found = fnmatch.filter(modules, pattern)
    if not found:
      kernels = [module for module in modules if _ADAPTABLE.fullmatch(module)]
      raise ValueError(
        f"model.lora_targets: {pattern!r} matches nothing; there are "
        f"{_names(kernels)}"
      )
    if other := [m for m in found if not _ADAPTABLE.fullmatch(m)]:
      raise ValueError(
        f"model.lora_targets: {pattern!r} matches {other[0]}, which is no "
        "kernel of a layer: only query, key, value, out, up, gate and down can "
        "be adapted"
      )
    own = [m for m in found if not lora.trains_whole(f"{m}/kernel")]
    if not own:
      raise ValueError(
        f"model.lora_targets: all that {pattern!r} matches is trained whole by "
        "model.lora_unfrozen; take it out of one of them"
      )
    result |= set(own)
  for pattern in lora.unfrozen:
    if not fnmatch.filter(paths, pattern):
      raise ValueError(
        f"model.lora_unfrozen: {pattern!r} matches nothing; there are "
        f"{_names(modules)}"
      )
  return sorted(result)


def _names(modules: Sequence[str]) -> str:
  """Modules without their sides' names, once each."""
  return ", ".join(
    dict.fromkeys(module.partition("/")[2] or module for module in modules)
  )


def add(stored: Params, lora: LoraConfig | None, key: Key[Array, ""]) -> Params:
  """A tree with adapters, which as yet change nothing.

  Matrix A is drawn as PEFT does, B is zero.

  Raises:
    ValueError: see `adapted`.
  """
  if lora is None:
    return stored
  flat: dict[str, Any] = traverse_util.flatten_dict(stored, sep="/")
  for module in adapted(flat, lora):
    kernel = flat[f"{module}/kernel"]
    layers, *dims = kernel.shape
    split = input_dims(module)
    inputs, outputs = dims[:split], dims[split:]
    # A kernel's draw does not depend on which others are adapted.
    own = jax.random.fold_in(key, zlib.crc32(module.encode()) >> 1)
    bound = math.prod(inputs) ** -0.5
    flat[f"{module}/{A}"] = jax.random.uniform(
      own, (layers, *inputs, lora.rank), jnp.float32, -bound, bound
    )
    zeros = jnp.zeros((layers, lora.rank, *outputs), jnp.float32)
    flat[f"{module}/{B}"] = zeros
    if lora.dora:
      # Else a compiler may take the lengths of what is not rounded yet.
      kernel = jax.lax.optimization_barrier(jnp.asarray(kernel))
      flat[f"{module}/kernel"] = kernel
      norm = _column_norm(jnp.asarray(kernel, jnp.float32), split)
      flat[f"{module}/{MAGNITUDE}"] = norm.reshape(layers, *outputs)
  return traverse_util.unflatten_dict(flat, sep="/")


def without(stored: Params) -> Params:
  """The tree without adapters, with kernels as they are."""
  flat: dict[str, Any] = traverse_util.flatten_dict(stored, sep="/")
  return traverse_util.unflatten_dict(
    {p: leaf for p, leaf in flat.items() if p.rpartition("/")[2] not in LEAVES},
    sep="/",
  )


def merge(stored: Params, lora: LoraConfig | None) -> Params:
  """The tree without adapters, whose kernels are the composed ones.

  They are composed in float32, and have the kernels' dtype. Gradients flow to
  the adapters and to the kernels.
  """
  if lora is None:
    return stored
  flat: dict[str, Any] = traverse_util.flatten_dict(stored, sep="/")
  result = {}
  for path, leaf in flat.items():
    module, _, name = path.rpartition("/")
    if name in LEAVES:
      continue
    if name == "kernel" and f"{module}/{A}" in flat:
      magnitude = flat.get(f"{module}/{MAGNITUDE}")
      leaf = _composed(
        jnp.asarray(leaf),
        jnp.asarray(flat[f"{module}/{A}"]),
        jnp.asarray(flat[f"{module}/{B}"]),
        None if magnitude is None else jnp.asarray(magnitude),
        lora.scale,
      )
    result[path] = leaf
  return traverse_util.unflatten_dict(result, sep="/")


def _composed(
  kernel: Float[Array, "L *dims"],
  a: Float[Array, "L *inputs r"],
  b: Float[Array, "L r *outputs"],
  magnitude: Float[Array, "L *outputs"] | None,
  scale: float,
) -> Float[Array, "L *dims"]:
  delta = jax.lax.dot_general(
    a.astype(jnp.float32),
    b.astype(jnp.float32),
    (((a.ndim - 1,), (1,)), ((0,), (0,))),
    precision=jax.lax.Precision.HIGHEST,
  )
  whole = kernel.astype(jnp.float32) + scale * delta
  if magnitude is not None:
    # Its gradient is left out, as in the paper's section 4.3.
    norm = jax.lax.stop_gradient(_column_norm(whole, a.ndim - 2))
    length = magnitude.astype(jnp.float32).reshape(norm.shape)
    # A column of zeros has no direction, and stays one.
    whole *= length / jnp.where(norm > 0, norm, 1.0)
  return whole.astype(kernel.dtype)


def input_dims(module: str) -> int:
  """How many of a kernel's dimensions, after the layers', are its input's."""
  return 2 if module.endswith("/out") else 1


def _column_norm(
  kernel: Float[Array, "L *dims"], input_dims: int
) -> Float[Array, "L *ones_and_outputs"]:
  axes = tuple(range(1, 1 + input_dims))
  return jnp.sqrt(jnp.sum(jnp.square(kernel), axis=axes, keepdims=True))
