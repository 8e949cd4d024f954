"""Hugging Face's warps: they narrow the distribution that is sampled from."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from encdec.generation.search.options import Warps

Scores = Float[Array, "B N V"]


def warp(scores: Scores, warps: Warps, keep: int) -> Scores:
  """All warps that are set, in PyTorch's order.

  Args:
    keep: tokens that stay possible at least.
  """
  w = warps
  if w.temperature is not None:
    scores = scores / w.temperature
  if w.top_k:
    scores = _top_k(scores, max(w.top_k, keep))
  if w.top_p is not None:
    scores = _top_p(scores, w.top_p, keep)
  if w.min_p is not None:
    scores = _min_p(scores, w.min_p, keep)
  if w.typical_p is not None:
    scores = _typical(scores, w.typical_p, keep)
  if w.epsilon_cutoff is not None:
    scores = _cutoff(scores, w.epsilon_cutoff, keep)
  if w.eta_cutoff is not None:
    # Hewitt et al. 2022, equation 6.
    log_p = jax.nn.log_softmax(scores, axis=-1)
    entropy = _entropy(log_p)
    eta = jnp.minimum(w.eta_cutoff, jnp.sqrt(w.eta_cutoff) * jnp.exp(-entropy))
    scores = _cutoff(scores, eta, keep)
  return scores


def _ban(scores: Scores, where: Bool[Array, "B N V"]) -> Scores:
  return jnp.where(where, -jnp.inf, scores)


def _below_best(scores: Scores, k: int) -> Bool[Array, "B N V"]:
  """Where scores are below the k-th largest; ties with it are kept by all."""
  best, at = jax.lax.top_k(scores, min(k, scores.shape[-1]))
  # By index too: XLA may compute scores once more to compare them, and round
  # otherwise.
  return _spare(scores < best[..., -1:], at)


def _spare(
  drop: Bool[Array, "B N V"], at: Int[Array, "B N K"]
) -> Bool[Array, "B N V"]:
  return jax.vmap(jax.vmap(lambda row, at: row.at[at].set(False)))(drop, at)


def _top_k(scores: Scores, k: int) -> Scores:
  return _ban(scores, _below_best(scores, k))


def _top_p(scores: Scores, top_p: Float[Array, ""], keep: int) -> Scores:
  """Drops the least likely whose probabilities sum up to at most 1 - p."""
  order = jnp.argsort(scores, axis=-1)
  ascending = jnp.take_along_axis(scores, order, axis=-1)
  mass = jnp.cumsum(jax.nn.softmax(ascending, axis=-1), axis=-1)
  drop = (mass <= 1 - top_p) & _before_last(scores.shape[-1], keep)
  return _ban(scores, _unsorted(drop, order))


def _before_last(count: int, keep: int) -> Bool[Array, "1 1 V"]:
  return (jnp.arange(count, dtype=jnp.int32) < count - keep)[None, None]


def _unsorted(
  values: Bool[Array, "B N V"], order: Int[Array, "B N V"]
) -> Bool[Array, "B N V"]:
  return jnp.take_along_axis(values, jnp.argsort(order, axis=-1), axis=-1)


def _min_p(scores: Scores, min_p: Float[Array, ""], keep: int) -> Scores:
  p = jax.nn.softmax(scores, axis=-1)
  drop = p < min_p * jnp.max(p, axis=-1, keepdims=True)
  # Exactly `keep` are safe here, whatever ties with them.
  _, best = jax.lax.top_k(p, min(keep, p.shape[-1]))
  return _ban(scores, _spare(drop, best))


def _entropy(log_p: Scores) -> Float[Array, "B N 1"]:
  weighted = jnp.where(jnp.isfinite(log_p), log_p * jnp.exp(log_p), 0.0)
  return -jnp.sum(weighted, axis=-1, keepdims=True)


def _typical(scores: Scores, mass: Float[Array, ""], keep: int) -> Scores:
  """Keeps what is nearest to the expected information (Meister et al. 2022)."""
  log_p = jax.nn.log_softmax(scores, axis=-1)
  distance = jnp.abs(-log_p - _entropy(log_p))
  order = jnp.argsort(distance, axis=-1)
  sorted_distance = jnp.take_along_axis(distance, order, axis=-1)
  p = jax.nn.softmax(jnp.take_along_axis(scores, order, axis=-1), axis=-1)
  below = jnp.cumsum(p, axis=-1) < mass
  last = jnp.sum(below, axis=-1, keepdims=True, dtype=jnp.int32)
  last = jnp.minimum(last, scores.shape[-1] - 1)
  limit = jnp.take_along_axis(sorted_distance, last, axis=-1)
  index = jnp.arange(scores.shape[-1], dtype=jnp.int32)[None, None]
  drop = (sorted_distance > limit) & (index >= keep)
  return _ban(scores, _unsorted(drop, order))


def _cutoff(scores: Scores, least: Float[Array, "..."], keep: int) -> Scores:
  """Drops what is less likely than `least`, but for the best `keep`."""
  p = jax.nn.softmax(scores, axis=-1)
  return _ban(scores, (p < least) & _below_best(scores, keep))
