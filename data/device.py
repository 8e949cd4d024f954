"""Devices: from the rows that a host builds to global arrays."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Int64


def local_rows(
  sharding: jax.sharding.Sharding, batch_size: int
) -> Int64[np.ndarray, " R"]:
  """The rows of a global batch that this host's devices hold, ascending.

  Told by the sharding, not by the host's number: hosts may share rows, and a
  host's rows need not be neighbours. Raises ValueError where the batch does
  not divide over the devices.
  """
  # A second axis of one: a spec may speak of both axes of a batch's arrays.
  shape = (batch_size, 1)
  rows: set[int] = set()
  indices: Mapping[Any, Any] = sharding.addressable_devices_indices_map(shape)
  for index in indices.values():
    rows.update(range(*index[0].indices(batch_size)))
  return np.array(sorted(rows), np.int64)


def to_device(
  batch: Mapping[str, np.ndarray],
  rows: Int64[np.ndarray, " R"],
  sharding: jax.sharding.Sharding,
  batch_size: int,
) -> dict[str, jax.Array]:
  """Global arrays of `batch_size` rows, of which this host has `rows`."""
  return {
    name: _global(array, rows, sharding, batch_size)
    for name, array in batch.items()
  }


def _global(
  array: np.ndarray,
  rows: Int64[np.ndarray, " R"],
  sharding: jax.sharding.Sharding,
  batch_size: int,
) -> jax.Array:
  def part(index: Any) -> np.ndarray:
    wanted = np.arange(*index[0].indices(batch_size))
    return array[np.searchsorted(rows, wanted)][(slice(None), *index[1:])]

  shape = (batch_size, *array.shape[1:])
  return jax.make_array_from_callback(shape, sharding, part)
