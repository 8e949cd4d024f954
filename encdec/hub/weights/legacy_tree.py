"""Converts parameters to and from the tree of transformers 4.57's Flax classes.

There each layer has a subtree of its own, named as in PyTorch; a dense layer's
`weight` is a transposed `kernel`, a norm's is `scale`, a table's `embedding`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util
from flax.core import FrozenDict, unfreeze
from transformers import EncoderDecoderConfig

from encdec.archs import ARCHS
from encdec.hub.configs import encdec_config, sides_of, tied_by
from encdec.hub.weights.conversion import hub_from_tree, tree_from_hub
from encdec.hub.weights.tensor_map import tensor_mappings
from encdec.sharing import share_of
from encdec.types import Params


def to_flax457(params: Params, config: EncoderDecoderConfig) -> Params:
  """The tree of transformers 4.57, as numpy arrays.

  Raises:
    ValueError: transformers 4.57 built no Flax pair of an architecture.
  """
  _check(config)
  ours = encdec_config(config, share=share_of(params))
  paths = _old_paths(config)
  flat = {
    # safetensors writes the bytes of a view as they lie.
    paths[name]: np.ascontiguousarray(_transposed(array, paths[name]))
    for name, array in hub_from_tree(ours, params)
    if name in paths
  }
  return traverse_util.unflatten_dict(flat, sep="/")


def from_flax457(
  params: Mapping[str, Any],
  config: EncoderDecoderConfig,
  *,
  share: str | None = None,
) -> Params:
  """This library's tree, as numpy arrays, from that of transformers 4.57.

  Args:
    share: what its sides share; by default what the config says.

  Raises:
    LoadingError: it lacks something or holds what the config does not imply;
      names are PyTorch's.
  """
  _check(config)
  if isinstance(params, FrozenDict):
    params = unfreeze(params)
  names = {path: name for name, path in _old_paths(config).items()}
  tensors = {}
  for path, leaf in traverse_util.flatten_dict(dict(params), sep="/").items():
    name = names.get(path, path.replace("/", "."))
    tensors[name] = _transposed(np.asarray(leaf), path)
  ours = encdec_config(config, share=share or tied_by(config))
  tree, _ = tree_from_hub(ours, tensors)
  return tree


def _check(config: EncoderDecoderConfig) -> None:
  for side in sides_of(config):
    arch = ARCHS.get(side.model_type)
    if arch is not None and not arch.IN_FLAX_457:
      raise ValueError(
        f"{side.model_type}: transformers 4.57 built no Flax pair of it, so "
        "there is no old tree to convert"
      )


def _old_paths(config: EncoderDecoderConfig) -> dict[str, str]:
  """The old tree's path of each tensor, by PyTorch's name."""
  paths = {}
  for mapping in tensor_mappings(encdec_config(config)):
    # Old untied heads had one bias, PyTorch's have a second name for it.
    if not mapping.name.endswith(".decoder.bias"):
      leaf = mapping.path.rpartition("/")[2]
      parents = mapping.name.split(".")[:-1]
      paths[mapping.name] = "/".join([*parents, leaf])
  return paths


def _transposed(array: np.ndarray, path: str) -> np.ndarray:
  return array.T if path.endswith("/kernel") else array
