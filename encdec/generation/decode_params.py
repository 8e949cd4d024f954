"""Parameters as decoding reads them: a layer at a time, in compute dtype."""

import math

import jax

from encdec import explicit_axes
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import Params

# They multiply the whole source, once: many rows.
_OF_THE_SOURCE = (("cross_attention", "key"), ("cross_attention", "value"))


def unstack(params: Params, module: FlaxEncoderDecoderModule) -> Params:
  """The decoding form: `layers` as tuples, cast to the module's dtype.

  Make it once per version of the weights, outside the token loop: slicing the
  stacked arrays within it copies the decoder's weights at every call. A layer
  that all share is there once: a program would return each one more as a copy.

  On a CPU the decoder's kernels are `transposed`, `O I`, as it multiplies a few
  rows fastest; see `encdec.layers.matmul`. Accelerators do not mind.

  Raises:
    ValueError: a leaf is split over an axis of type Explicit.
  """
  explicit_axes.check({"params": params})

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

  params = jax.tree.map(lambda leaf: leaf.astype(module.dtype), params)
  params = {
    name: side(tree) if "layers" in tree else tree
    for name, tree in params.items()
  }
  if "decoder" in params and module.platform == "cpu":
    decoder = params["decoder"]
    params["decoder"] = decoder | {
      "layers": tuple(_transposed(layer) for layer in decoder["layers"]),
      **({"head": _transposed(decoder["head"])} if "head" in decoder else {}),
    }
  return params


def _transposed(tree: Params, path: tuple[str, ...] = ()) -> Params:
  if path in _OF_THE_SOURCE:
    return tree
  changed = {}
  for name, leaf in tree.items():
    if name == "kernel":
      # An attention's output is the one kernel with several input axes.
      inputs = leaf.ndim - 1 if path[-1:] == ("out",) else 1
      size = math.prod(leaf.shape[:inputs])
      changed["transposed"] = leaf.reshape(size, -1).T
    elif isinstance(leaf, dict):
      changed[name] = _transposed(leaf, (*path, name))
    else:
      changed[name] = leaf
  return changed
