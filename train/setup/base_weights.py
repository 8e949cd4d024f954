"""The weights that adapters leave as they are, and that no checkpoint holds.

A run reads or draws them anew each time it begins, and is refused others than
those it was trained over.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.sharding import Mesh

from encdec import adapters
from encdec.adapters import LoraConfig
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import Params
from train.config import Config
from train.errors import Refusal
from train.mesh import replicated
from train.setup.initial_params import first_params
from train.state import create_params, placed


def saved_part(params: Params, lora: LoraConfig | None) -> Params:
  """What a checkpoint holds of parameters: all, or what adapters train."""
  if lora is None:
    return params
  flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
  return traverse_util.unflatten_dict(
    {path: leaf for path, leaf in flat.items() if not lora.is_base(path)},
    sep="/",
  )


def checksums(
  params: Params, lora: LoraConfig | None, mesh: Mesh
) -> dict[str, int]:
  """A number for each leaf of the base, equal on every mesh; or none at all.

  It is the sum of the values' bits, which has no order.
  """
  if lora is None:
    return {}
  flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
  base = {path: leaf for path, leaf in flat.items() if lora.is_base(path)}
  summed = jax.jit(
    lambda leaves: jax.tree.map(_sum_of_bits, leaves),
    out_shardings=replicated(mesh),
  )
  return {path: int(number) for path, number in summed(base).items()}


def _sum_of_bits(leaf: jax.Array) -> jax.Array:
  word = {2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
  bits = jax.lax.bitcast_convert_type(leaf, word)
  return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)


def completed(
  saved: Params,
  meta: Mapping[str, Any],
  config: Config,
  module: FlaxEncoderDecoderModule,
  mesh: Mesh,
  abstract: Params,
) -> Params:
  """What a checkpoint held, with the base that it was trained over.

  Args:
    meta: the checkpoint's.
    abstract: all parameters, as ShapeDtypeStructs with shardings.

  Raises:
    Refusal: what `config` names is not that base.
  """
  lora = module.config.lora
  if lora is None:
    return saved
  key = jax.random.key(config.seed)
  first = first_params(config, module)
  first = create_params(module, abstract, key, first)
  _check_same(meta, checksums(first, lora, mesh))
  flat: dict[str, Any] = traverse_util.flatten_dict(first, sep="/")
  flat |= traverse_util.flatten_dict(saved, sep="/")
  return traverse_util.unflatten_dict(flat, sep="/")


def untrained(
  params: Params, config: Config, module: FlaxEncoderDecoderModule
) -> Params:
  """The pair that adapters were trained over, where `params` lie.

  Args:
    params: with adapters, of a run of `config`.
  """
  lora = module.config.lora
  if lora is None:
    return params
  base = adapters.without(params)
  key = jax.random.key(config.seed)
  first = first_params(config, module)
  without = dataclasses.replace(module.config, lora=None)
  abstract = jax.tree.map(placed, base)
  first = create_params(module.clone(config=without), abstract, key, first)
  flat: dict[str, Any] = traverse_util.flatten_dict(base, sep="/")
  whole: dict[str, Any] = traverse_util.flatten_dict(first, sep="/")
  # What is frozen is there already, as the checkpoint's checksums have it.
  whole |= {path: leaf for path, leaf in flat.items() if lora.is_base(path)}
  return traverse_util.unflatten_dict(whole, sep="/")


def _check_same(meta: Mapping[str, Any], found: Mapping[str, int]) -> None:
  saved = meta.get("base", {})
  for path in sorted(saved.keys() | found.keys()):
    if saved.get(path) != found.get(path):
      raise Refusal(
        f"the adapters of step {meta['step']} were trained over other weights: "
        f"{path} differs from what model.encoder, model.decoder or model.pair "
        "gives now; name the files that the run began with (random weights: "
        "its seed, on its kind of machine)"
      )
