"""Hub tensors computed from the config, such as sinusoidal positions."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from encdec.config import EncDecConfig
from encdec.hub.files.lazy_tensors import Tensors
from encdec.hub.files.safetensors_writer import TensorToWrite
from encdec.hub.weights.loading_report import LoadingError
from encdec.hub.weights.tensor_map import arch_of


def computed(config: EncDecConfig) -> dict[str, np.ndarray]:
  """The derived tensors, float32, by composite name."""
  result = {}
  for side in ("encoder", "decoder"):
    stack = getattr(config, side)
    arch = arch_of(stack)
    base = f"{arch.BASE_PREFIX}." if side == "decoder" else ""
    if hasattr(arch, "computed"):
      for name, array in arch.computed(stack).items():
        result[f"{side}.{base}{name}"] = array
  return result


def stored_names(
  tensors: Tensors, own: Mapping[str, str], config: EncDecConfig, where: str
) -> set[str]:
  """Composite names of the derived tensors that a checkpoint holds.

  Args:
    own: composite name to the checkpoint's.
    where: for messages.

  Raises:
    LoadingError: one has other values, with which PyTorch would compute.
  """
  arrays = {k: v for k, v in computed(config).items() if k in own}
  for name, array in arrays.items():
    check_equal(tensors[own[name]], array, f"{where} holds {own[name]}")
  return set(arrays)


def check_equal(stored: np.ndarray, wanted: np.ndarray, what: str) -> None:
  """Raises LoadingError if a stored table is not the computed one."""
  if stored.shape != wanted.shape:
    raise LoadingError(
      f"{what} of shape {list(stored.shape)}; the config implies "
      f"{list(wanted.shape)}: correct config.json"
    )
  # The values are up to 1, and rounded to bfloat16 at the coarsest.
  bound = 1e-6 if stored.dtype == np.float32 else 2**-8
  error = float(np.abs(stored.astype(np.float32) - wanted).max())
  if not error <= bound:
    raise LoadingError(
      f"{what}, which differs by {error:.1e} from what the architecture "
      "computes; a table of one's own is not supported"
    )


def tensors_to_write(
  config: EncDecConfig, leaves: Mapping[str, Any], part: str | None
) -> list[TensorToWrite]:
  """Derived tensors, to be written beside the leaves in their dtype."""
  dtype = np.dtype(next(iter(leaves.values())).dtype)
  result = []
  for name, array in computed(config).items():
    side, _, inner = name.partition(".")
    if part in (None, side):
      name, array = name if part is None else inner, array.astype(dtype)
      make = functools.partial(np.asarray, array)
      result.append(TensorToWrite(name, array.shape, dtype, make))
  return result
