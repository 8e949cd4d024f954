"""Optimizers by name, out of optax: what a gradient becomes before its rate."""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import optax

from encdec.sharding import leaf_path
from encdec.types import Params
from train.optim.matrices import is_stacked, matrix_axes, per_matrix
from train.optim.settings import OptimConfig

# The least side of a matrix whose second moments adafactor factors.
FACTORED_FROM = 128
# Matrices and tables; never biases and norms.
_DECAYED = re.compile(r"(.+/)?(kernel|embedding|lora_[ab])")


def update_rule(optim: OptimConfig) -> list[optax.GradientTransformation]:
  """What is chained before the learning rate.

  Weight decay is decoupled, and multiplied by the learning rate.
  """
  direction = _DIRECTIONS[optim.name](optim)
  decay = optax.add_decayed_weights(optim.weight_decay, mask=decayed)
  match optim.name:
    case "adam":
      return direction
    case "lamb":
      # You et al. 2020: a matrix changes by a share of its norm, decay too. As
      # in their code biases do not: from zero they would hardly move.
      share = per_matrix(optax.scale_by_trust_ratio())
      return [*direction, decay, optax.masked(share, decayed)]
    case _:
      return [*direction, decay]


def decayed(params: Params) -> Params:
  """Which leaves weight decay applies to, a tree of bool."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: bool(_DECAYED.fullmatch(leaf_path(path))), params
  )


def _adam(optim: OptimConfig) -> list[optax.GradientTransformation]:
  return [optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.eps)]


def _adafactor(optim: OptimConfig) -> list[optax.GradientTransformation]:
  """Shazeer and Stern 2018, without momentum; the rate is relative."""
  return [
    per_matrix(
      optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=FACTORED_FROM),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
      )
    )
  ]


def _lion(optim: OptimConfig) -> list[optax.GradientTransformation]:
  return [optax.scale_by_lion(b1=optim.b1, b2=optim.b2)]


def _sgd(optim: OptimConfig) -> list[optax.GradientTransformation]:
  momentum = 0.9 if optim.momentum == -1.0 else optim.momentum
  return [optax.trace(momentum)] if momentum else []


def _muon(optim: OptimConfig) -> list[optax.GradientTransformation]:
  """Matrices of layers by muon (Jordan et al. 2024), all else by AdamW.

  Tables and heads are matrices too, and its authors leave them to AdamW.
  """
  momentum = 0.95 if optim.momentum == -1.0 else optim.momentum
  muon = optax.chain(
    optax.contrib.scale_by_muon(
      beta=momentum, weight_dimension_numbers=_dimension_numbers
    ),
    optax.stateless(lambda updates, params: _as_long_as_adamw(updates)),
  )
  [adam] = _adam(optim)
  return [optax.partition({"muon": muon, "adam": adam}, _muon_labels)]


def _as_long_as_adamw(updates: Any) -> Any:
  """Makes orthogonal matrices as long as an update of AdamW usually is.

  One learning rate and weight decay then serve both (Liu et al. 2025).
  """

  def scale(path: Any, leaf: jax.Array) -> jax.Array:
    _, *axes = matrix_axes(leaf_path(path))
    sides = [math.prod(leaf.shape[axis] for axis in side) for side in axes]
    return 0.2 * math.sqrt(max(sides)) * leaf

  return jax.tree_util.tree_map_with_path(scale, updates)


def _muon_labels(params: Params) -> Params:
  def label(path: Any, leaf: Any) -> str:
    name = leaf_path(path)
    matrix = is_stacked(name) and len(matrix_axes(name)) == 3
    return "muon" if matrix else "adam"

  return jax.tree_util.tree_map_with_path(label, params)


def _dimension_numbers(params: Any) -> Any:
  def numbers(path: Any, leaf: Any) -> optax.contrib.MuonDimensionNumbers:
    _, rows, columns = matrix_axes(leaf_path(path))
    return optax.contrib.MuonDimensionNumbers(rows, columns)

  return jax.tree_util.tree_map_with_path(numbers, params)


_DIRECTIONS: dict[
  str, Callable[[OptimConfig], list[optax.GradientTransformation]]
] = {
  "adamw": _adam,
  "adam": _adam,
  "adafactor": _adafactor,
  "lion": _lion,
  "muon": _muon,
  "lamb": _adam,
  "sgd": _sgd,
}
