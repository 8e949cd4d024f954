"""Checks and casts parameter trees that callers pass."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.core import FrozenDict, unfreeze
from jaxtyping import Array, Float

from encdec.types import Params


def plain_tree(params: Mapping[str, Any]) -> Params:
  """A nested dict; refuses the tree of the Flax classes of transformers 4."""
  tree = unfreeze(params) if isinstance(params, FrozenDict) else dict(params)
  sides = [tree.get("encoder"), tree.get("decoder")]
  old = {"encoder", "bert", "roberta", "transformer"}
  if any(isinstance(side, Mapping) and old & side.keys() for side in sides):
    raise ValueError(
      "these params have the layout of transformers 4, one subtree a layer; "
      "convert them with encdec.hub.from_flax457(params, model.config)"
    )
  return tree


def check_tree(params: Params, expected: Params) -> None:
  """Checks paths and shapes of parameters.

  Raises:
    ValueError: a path or a shape is not that of `expected`; it names them.
  """
  given: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
  wanted: dict[str, Any] = traverse_util.flatten_dict(expected, sep="/")
  for problem, paths in (
    ("lack", wanted.keys() - given.keys()),
    ("hold the unknown", given.keys() - wanted.keys()),
  ):
    if paths:
      raise ValueError(f"the params {problem} {', '.join(sorted(paths))}")
  for path, leaf in given.items():
    if leaf.shape != wanted[path].shape:
      raise ValueError(
        f"the params have {path} of shape {list(leaf.shape)}; the config "
        f"implies {list(wanted[path].shape)}"
      )


def cast(params: Params, dtype: Any, mask: Any) -> Params:
  """Casts floating leaves: all, or where `mask`, a tree like it, is True."""

  def one(leaf: Float[Array, "..."], chosen: bool = True):
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(dtype) if chosen and floating else leaf

  params = plain_tree(params)
  if mask is None:
    return jax.tree.map(one, params)
  return jax.tree.map(one, params, plain_tree(mask))
