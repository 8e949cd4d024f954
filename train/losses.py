"""Losses. Each gives a sum and a weight: whoever adds them up divides once."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from encdec import sharding
from encdec.masks import count_positions
from encdec.model import FlaxEncoderDecoderModule
from encdec.sharing import expand
from encdec.types import Params

Batch = Mapping[str, Array]
Head = Callable[[Float[Array, "B T D"]], Float[Array, "B T V"]]

# The matrix of a head, its own or the token table, by the logits' axes.
_HEAD_AXES: dict[str, sharding.Axes] = {
  "decoder/head/kernel": (None, "logits"),
  "decoder/embeddings/tokens/embedding": ("logits", None),
}


def pair_loss(
  params: Params,
  batch: Batch,
  *,
  module: FlaxEncoderDecoderModule,
  dropout_key: Key[Array, ""] | None,
  label_smoothing: float,
  loss_chunks: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """The loss of a batch as a sum, in nats, and a weight."""
  states, head = decoder_states(params, batch, module, dropout_key)
  return chunked_cross_entropy(
    head,
    states,
    batch["decoder_targets"],
    batch["decoder_weights"],
    label_smoothing,
    module.config.decoder.vocab_size,
    loss_chunks,
  )


def decoder_states(
  params: Params,
  batch: Batch,
  module: FlaxEncoderDecoderModule,
  dropout_key: Key[Array, ""] | None,
) -> tuple[Float[Array, "B T D"], Head]:
  """States of the decoder for a batch, and the head that makes them logits."""
  variables = {"params": expand(params, module.config)}
  batch = count_positions(batch, module.config)
  encoded: Any = module.apply(
    variables,
    tokens=batch["encoder_tokens"],
    segments=batch["encoder_segments"],
    positions=batch["encoder_positions"],
    dropout_key=dropout_key,
    method="encode",
  )
  decoded: Any = module.apply(
    variables,
    tokens=batch["decoder_inputs"],
    segments=batch["decoder_segments"],
    positions=batch["decoder_positions"],
    encoder_states=encoded.states,
    encoder_segments=batch["encoder_segments"],
    dropout_key=dropout_key,
    method="decode_states",
  )
  of_head = {"params": whole_head(variables["params"], module.rules)}
  head: Any = functools.partial(module.apply, of_head, method="head")
  return decoded.states, head


def whole_head(params: Params, rules: sharding.Rules | None) -> Params:
  """Parameters of which the head's matrix lies as the logits do.

  Gathered here it is gathered once, not again for each chunk of the loss; in
  the parameters' dtype, in which the chunks' gradients are added up.
  """

  def place(path, leaf):
    axes = _HEAD_AXES.get(sharding.leaf_path(path))
    return leaf if axes is None else sharding.constrain(leaf, axes, rules)

  return jax.tree_util.tree_map_with_path(place, params)


def token_losses(
  logits: Float[Array, "*batch V"],
  targets: Int[Array, "*batch"],
  label_smoothing: float,
  vocab_size: int,
) -> Float[Array, "*batch"]:
  """Cross-entropy of every token in nats, float32.

  `label_smoothing` is the share of the target that lies evenly on the
  `vocab_size` real ids; columns behind them are padding and count for nothing.
  """
  logits = logits.astype(jnp.float32)
  # Comparing with an iota keeps the columns where they lie on the mesh, where
  # taking an element would gather them.
  columns = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  hit = columns == jnp.expand_dims(targets, -1)
  normaliser = jax.nn.logsumexp(logits, axis=-1)
  expected = jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)
  if label_smoothing:
    real = jnp.where(columns < vocab_size, logits, 0.0)
    even = jnp.sum(real, axis=-1) / vocab_size
    expected = (1 - label_smoothing) * expected + label_smoothing * even
  return normaliser - expected


def cross_entropy(
  logits: Float[Array, "*batch V"],
  targets: Int[Array, "*batch"],
  weights: Float[Array, "*batch"],
  label_smoothing: float,
  vocab_size: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Weighted sum of the tokens' losses in nats, and the sum of weights."""
  losses = token_losses(logits, targets, label_smoothing, vocab_size)
  weights = weights.astype(jnp.float32)
  return jnp.sum(losses * weights), jnp.sum(weights)


def chunked_cross_entropy(
  head: Head,
  states: Float[Array, "B T D"],
  targets: Int[Array, "B T"],
  weights: Float[Array, "B T"],
  label_smoothing: float,
  vocab_size: int,
  chunks: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """`cross_entropy` of `head(states)`, whose logits exist a chunk at a time."""
  losses = score_in_chunks(
    lambda logits, ids: token_losses(logits, ids, label_smoothing, vocab_size),
    head,
    states,
    targets,
    chunks,
  )
  weights = weights.astype(jnp.float32)
  return jnp.sum(losses * weights), jnp.sum(weights)


def score_in_chunks(
  score: Callable[[Float[Array, "B t V"], Int[Array, "B t"]], Any],
  head: Head,
  states: Float[Array, "B T D"],
  targets: Int[Array, "B T"],
  chunks: int,
) -> Any:
  """`score(head(states), targets)`, a tree of `[B, T]`, chunk by chunk of T.

  The backward pass computes a chunk's logits again. T need not be a multiple
  of `chunks`.
  """
  if chunks == 1:
    return score(head(states), targets)
  batch, length = targets.shape
  size = -(-length // chunks)

  def cut(x):
    padding = [(0, 0)] * x.ndim
    padding[1] = (0, chunks * size - length)
    x = jnp.pad(x, padding)
    return jnp.moveaxis(x.reshape(batch, chunks, size, *x.shape[2:]), 1, 0)

  def join(y):
    y = jnp.moveaxis(y, 0, 1).reshape(batch, chunks * size)
    return y[:, :length]

  @jax.checkpoint
  def body(_, chunk):
    states, targets = chunk
    return None, score(head(states), targets)

  _, scores = jax.lax.scan(body, None, (cut(states), cut(targets)))
  return jax.tree.map(join, scores)
