"""Parameters as decoding reads them: a layer at a time, in compute dtype."""

from typing import Any

import jax
from jaxtyping import Array

from encdec.types import Params


def unstack(params: Params, dtype: Any = None) -> Params:
  """The decoding form: `layers` as tuples, floats cast to `dtype`.

  Make it once per version of the weights, outside the token loop: slicing the
  stacked arrays within it copies the decoder's weights at every call. A layer
  that all share is there once: a program would return each one more as a copy.
  """

  def cast(leaf: Array) -> Array:
    return leaf if dtype is None else leaf.astype(dtype)

  def side(tree: Params) -> Params:
    layers = tree["layers"]
    count = jax.tree.leaves(layers)[0].shape[0]
    return {
      **tree,
      "layers": tuple(
        jax.tree.map(lambda leaf, i=index: leaf[i], layers)
        for index in range(count)
      ),
    }

  params = {
    name: side(tree) if "layers" in tree else tree
    for name, tree in jax.tree.map(cast, params).items()
  }
  if "decoder" in params and jax.default_backend() == "cpu":
    params["decoder"] = _with_head_kernel(params["decoder"])
  return params


def _with_head_kernel(decoder: Params) -> Params:
  """A tied head's own copy of the token table, `E V`.

  A CPU multiplies a few rows with it in two thirds of the time, and the head
  is half of a step; accelerators do not mind.
  """
  head = decoder.get("head", {})
  if "kernel" in head:
    return decoder
  table = decoder["embeddings"]["tokens"]["embedding"]
  return {**decoder, "head": {**head, "kernel": table.T}}
