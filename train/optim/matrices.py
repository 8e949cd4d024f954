"""Parameters as the matrices that they are: `[L, D, H, K]`, L of `[D, H*K]`.

An optimizer that has statistics of a matrix must not see a stack of layers as
one, nor heads as an axis of their own.
"""

import math
from typing import Any

import jax
import optax
from jax.sharding import PartitionSpec

from encdec.sharding import leaf_path, logical_axes
from encdec.types import Params

_OF_HEADS = ("heads", "kv_heads")


def is_stacked(path: str) -> bool:
  """Whether a parameter's first axis is that of the layers."""
  return logical_axes(path)[0] == "layers"


def matrix_axes(path: str) -> tuple[tuple[int, ...], ...]:
  """The axes of a parameter; those of heads and their width are one.

  `encoder/layers/self_attention/out/kernel`, which is `[L, H, K, D]`, has
  ((0,), (1, 2), (3,)).
  """
  axes: list[tuple[int, ...]] = []
  names = logical_axes(path)
  for number, name in enumerate(names):
    if name == "head_width" and names[number - 1] in _OF_HEADS:
      axes[-1] += (number,)
    else:
      axes.append((number,))
  return tuple(axes)


def as_matrices(params: Params) -> Params:
  """Every leaf as `[rows, columns]` or `[n]`, with the layers before these."""

  def view(path: Any, leaf: Any) -> Any:
    axes = matrix_axes(leaf_path(path))
    return leaf.reshape(_sizes(leaf.shape, axes))

  return jax.tree_util.tree_map_with_path(view, params)


def _sizes(shape: tuple[int, ...], axes: tuple[tuple[int, ...], ...]) -> Any:
  return tuple(math.prod(shape[axis] for axis in group) for group in axes)


def per_matrix(
  tx: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """`tx` of every matrix and vector apart: of a stack, of each layer's.

  What it keeps of a stack has a leading axis, the layers'; its counts do not.
  """

  def parts(params: Params) -> optax.GradientTransformation:
    def label(path: Any, leaf: Any) -> str:
      stacked = is_stacked(leaf_path(path))
      return f"layers_{leaf.shape[0]}" if stacked else "single"

    labels = jax.tree_util.tree_map_with_path(label, params)
    names = sorted(set(jax.tree.leaves(labels)))
    transforms = {
      name: tx if name == "single" else _over_layers(tx) for name in names
    }
    return optax.partition(transforms, labels)

  def init(params: Any) -> Any:
    params = as_matrices(params)
    return parts(params).init(params)

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    if params is None:
      raise ValueError("the update of a matrix needs the parameters")
    params, seen = as_matrices(params), as_matrices(updates)
    seen, state = parts(params).update(seen, state, params)
    back = lambda new, old: new.reshape(old.shape)
    return jax.tree.map(back, seen, updates), state

  return optax.GradientTransformation(init, update)


def _over_layers(
  tx: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """`tx` of trees whose leaves all have the same leading axis."""

  def state_axes(params: Any) -> Any:
    one = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params
    )
    # A count is one for all layers.
    return jax.tree.map(
      lambda leaf: 0 if leaf.ndim else None, jax.eval_shape(tx.init, one)
    )

  def init(params: Any) -> Any:
    return jax.vmap(tx.init, out_axes=state_axes(params))(params)

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    axes = state_axes(params)
    return jax.vmap(tx.update, in_axes=(0, axes, 0), out_axes=(0, axes))(
      updates, state, params
    )

  return optax.GradientTransformation(init, update)


def statistic_spec(
  name: str,
  path: str,
  shape: tuple[int, ...],
  param_shape: tuple[int, ...],
  spec: PartitionSpec,
) -> PartitionSpec | None:
  """Where a statistic of the parameter at `path` lies; None: it is unknown.

  Statistics of rows lie as the rows do, those of columns as the columns. A
  placeholder, of a statistic that is not kept, is everywhere.

  Args:
    name: of the leaf of the optimizer's state.
    spec: the parameter's own.
  """
  axes = matrix_axes(path)
  sizes = _sizes(param_shape, axes)
  split = [*spec, *(None,) * (len(param_shape) - len(spec))]
  # A split second axis of a merged one is no contiguous part of it.
  entries = [
    None if any(split[axis] for axis in group[1:]) else split[group[0]]
    for group in axes
  ]
  if shape == sizes:
    return PartitionSpec(*entries)
  batch = int(is_stacked(path))
  if shape[batch:] == (1,) and shape[:batch] == sizes[:batch]:
    return PartitionSpec(*entries[:batch], None)
  if len(sizes) != batch + 2 or len(shape) != batch + 1:
    return None
  rows, columns = sizes[:-1], (*sizes[:-2], sizes[-1])
  of_rows, of_columns = entries[:-1], [*entries[:-2], entries[-1]]
  # Adafactor's names are right where rows and columns are as many.
  if shape == rows and not (rows == columns and "v_col" in name):
    return PartitionSpec(*of_rows)
  return PartitionSpec(*of_columns) if shape == columns else None
