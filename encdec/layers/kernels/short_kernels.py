"""What a TPU's core does for a tile of heads of a short row, both ways."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


@dataclasses.dataclass(frozen=True)
class Options:
  """What a kernel is made of; `tile` is the columns that it takes at a time."""

  width: int
  tile: int
  scale: float
  causal: bool
  interpret: bool


class Rows(NamedTuple):
  """The inputs of a row besides q, k and v; those that are None do not exist.

  Attributes:
    queries, keys: segments.
    kept: what the values of a key and head are multiplied with, by tiles.
  """

  queries: Int[Array, "B 1 T"] | None
  keys: Int[Array, "B 1 S"] | None
  kept: Float[Array, "B tiles heads S"] | None


def forward(
  options: Options, q_ref: Any, k_ref: Any, v_ref: Any, rows: Any, out_ref: Any
) -> None:
  """The output of the heads in a tile: T x S logits, a softmax along S."""
  q, k, v = q_ref[...], k_ref[...], v_ref[...]
  q, scale = _scaled(q, options.scale)
  allowed = _allowed(options, rows, (q.shape[0], k.shape[0]), queries=0)
  out = jnp.zeros(q.shape, jnp.float32)
  for head, columns in enumerate(_heads(options)):
    logits = scale(_product(q, _only(k, columns), 1, 1))
    weights, inverse = _exponentials(logits, allowed, axis=1)
    if rows.kept is not None:
      weights = weights * rows.kept[head : head + 1]
    values = _only(v, columns)
    out += _product(weights.astype(v.dtype), values, 1, 0) * inverse
  out_ref[...] = out.astype(out_ref.dtype)


def backward(
  options: Options,
  q_ref: Any,
  k_ref: Any,
  v_ref: Any,
  cotangent_ref: Any,
  rows: Any,
  dq_ref: Any,
  dk_ref: Any,
  dv_ref: Any,
) -> None:
  """Gradients of the heads in a tile, by S x T logits: sums go down."""
  q, k, v, cotangent = (r[...] for r in (q_ref, k_ref, v_ref, cotangent_ref))
  scaled, scale = _scaled(q, options.scale)
  allowed = _allowed(options, rows, (k.shape[0], q.shape[0]), queries=1)
  dq = jnp.zeros(q.shape, jnp.float32)
  dk, dv = (jnp.zeros(k.shape, jnp.float32) for _ in range(2))
  for head, columns in enumerate(_heads(options)):
    keys, change_of_out = _only(k, columns), _only(cotangent, columns)
    logits = scale(_product(keys, scaled, 1, 1))
    weights, inverse = _exponentials(logits, allowed, axis=0)
    weights = weights * inverse
    kept = 1.0 if rows.kept is None else _column(rows.kept[head : head + 1])
    dv += kept * _product(weights.astype(v.dtype), change_of_out, 1, 0)
    change = kept * _product(v, change_of_out, 1, 1)
    mean = jnp.sum(weights * change, axis=0, keepdims=True)
    change = (weights * (change - mean)).astype(q.dtype)
    dk += _product(change, _only(q, columns), 1, 0)
    dq += _product(change, keys, 0, 0)
  dq_ref[...] = (dq * options.scale).astype(dq_ref.dtype)
  dk_ref[...] = (dk * options.scale).astype(dk_ref.dtype)
  dv_ref[...] = dv.astype(dv_ref.dtype)


def _heads(options: Options) -> list[Bool[Array, "1 tile"]]:
  """For each head in a tile, the columns that are its own."""
  head = jax.lax.broadcasted_iota(jnp.int32, (1, options.tile), 1)
  head = head // options.width
  return [head == number for number in range(options.tile // options.width)]


def _scaled(
  q: Float[Array, "T tile"], scale: float
) -> tuple[Float[Array, "T tile"], Callable[[Array], Array]]:
  """Queries, and a function of their logits, which together scale them.

  A power of two, as of heads of width 64, changes no digit of a query.
  """
  if math.frexp(scale)[0] == 0.5:
    return q * jnp.asarray(scale, q.dtype), lambda logits: logits
  return q, lambda logits: logits * scale


def _only(
  x: Float[Array, "T tile"], columns: Bool[Array, "1 tile"]
) -> Float[Array, "T tile"]:
  return jnp.where(columns, x, jnp.zeros((), x.dtype))


def _product(
  a: Float[Array, "..."], b: Float[Array, "..."], axis_a: int, axis_b: int
) -> Float[Array, "..."]:
  """The float32 product of two matrices over an axis of each."""
  exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return jax.lax.dot_general(
    a,
    b,
    (((axis_a,), (axis_b,)), ((), ())),
    precision=exact,
    preferred_element_type=jnp.float32,
  )


def _allowed(
  options: Options, rows: Any, shape: tuple[int, int], queries: int
) -> Bool[Array, "..."] | None:
  """Who sees whom; `queries` is the axis that goes along them."""
  allowed = None
  if rows.queries is not None:
    of_query, of_key = rows.queries[...], rows.keys[...]
    down, across = (of_query, of_key) if queries == 0 else (of_key, of_query)
    allowed = _column(down) == across
  if options.causal:
    query = jax.lax.broadcasted_iota(jnp.int32, shape, queries)
    key = jax.lax.broadcasted_iota(jnp.int32, shape, 1 - queries)
    before = key <= query
    allowed = before if allowed is None else allowed & before
  return allowed


def _column(row: Shaped[Array, "1 n"]) -> Shaped[Array, "n 1"]:
  # A TPU transposes no less than eight rows.
  return jnp.broadcast_to(row, (8, row.shape[1])).T[:, :1]


def _exponentials(
  logits: Float[Array, "..."], allowed: Bool[Array, "..."] | None, axis: int
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
  """A softmax before its division, and the factor that divides it.

  Where nothing is allowed all exponentials are zero.
  """
  if allowed is not None:
    logits = jnp.where(allowed, logits, jnp.finfo(jnp.float32).min)
  highest = jnp.max(logits, axis=axis, keepdims=True)
  # Far above what is not allowed, far below every logit.
  highest = jnp.maximum(highest, -1e30)
  weights = jnp.exp(logits - highest)
  total = jnp.sum(weights, axis=axis, keepdims=True)
  return weights, 1.0 / jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
