"""Losses. Each gives a sum and a weight: whoever adds them up divides once."""

import dataclasses
import functools
import math
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

SMOOTHING_FORMS = ("uniform", "others", "opennmt")

# The matrix of a head, its own or the token table, by the logits' axes.
_HEAD_AXES: dict[str, sharding.Axes] = {
  "decoder/head/kernel": (None, "logits"),
  "decoder/embeddings/tokens/embedding": ("logits", None),
}


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """What is minimised; each part is a value in nats a target token.

  Attributes:
    label_smoothing: the share of a target's probability that other ids get.
    smoothing_form: which ids share it evenly. "uniform": all, the target too
      (Szegedy et al. 2016; PyTorch's); "others": all but the target, as in
      tensor2tensor and T5X (Vaswani et al. 2017); "opennmt": all but the target
      and the pad token (OpenNMT, and BertSum with it).
    pad_id: of the target side.
    z_loss: factor of the squared log-normaliser, which stays near zero then
      (Chowdhery et al. 2022, section 5).
    r_drop: factor of the divergence between two dropouts of one batch; the
      paper's alpha (Liang et al. 2021). 0.0: a batch is computed once.
  """

  label_smoothing: float = 0.0
  smoothing_form: str = "uniform"
  pad_id: int = 0
  z_loss: float = 0.0
  r_drop: float = 0.0

  def __post_init__(self):
    if not 0 <= self.label_smoothing < 1:
      raise ValueError(
        f"train.label_smoothing={self.label_smoothing} must lie in [0, 1)"
      )
    if self.smoothing_form not in SMOOTHING_FORMS:
      raise ValueError(
        f"train.smoothing_form={self.smoothing_form!r} is unknown; it is one "
        f"of {', '.join(SMOOTHING_FORMS)}"
      )
    for key in ("z_loss", "r_drop"):
      value = getattr(self, key)
      if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"train.{key}={value} must be finite and at least 0")


def pair_loss(
  params: Params,
  batch: Batch,
  *,
  module: FlaxEncoderDecoderModule,
  dropout_key: Key[Array, ""] | None,
  config: LossConfig,
  chunks: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """The loss of a batch as a sum, in nats, and a weight."""
  vocab_size = module.config.decoder.vocab_size
  score = functools.partial(token_losses, config=config, vocab_size=vocab_size)
  targets, weights = batch["decoder_targets"], batch["decoder_weights"]
  if config.r_drop:
    # Each row beside itself: on a mesh both stay where the row lies.
    batch = {name: jnp.repeat(x, 2, axis=0) for name, x in batch.items()}
    score = functools.partial(
      r_drop_losses, config=config, vocab_size=vocab_size
    )
  states, head = decoder_states(params, batch, module, dropout_key)
  nats = score_in_chunks(score, head, states, targets, chunks)
  weights = weights.astype(jnp.float32)
  return jnp.sum(nats * weights), jnp.sum(weights)


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
    types=batch.get("encoder_types"),
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
  config: LossConfig,
  vocab_size: int,
) -> Float[Array, "*batch"]:
  """Smoothed cross-entropy and z-loss of every token in nats, float32.

  Columns behind the `vocab_size` real ids are padding and count for nothing.
  Of the smoothed target its entropy, a constant, is not taken away.
  """
  logits = logits.astype(jnp.float32)
  # Comparing with an iota keeps the columns where they lie on the mesh, where
  # taking an element would gather them.
  columns = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  hit = columns == jnp.expand_dims(targets, -1)
  normaliser = jax.nn.logsumexp(logits, axis=-1)
  expected = jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)
  if smoothing := config.label_smoothing:
    shares = columns < vocab_size
    ids = vocab_size
    if config.smoothing_form != "uniform":
      shares, ids = shares & ~hit, ids - 1
    if config.smoothing_form == "opennmt":
      shares &= columns != config.pad_id
      # Where the end token pads, it is a target too.
      ids = ids - (targets != config.pad_id).astype(jnp.float32)
    even = jnp.sum(jnp.where(shares, logits, 0.0), axis=-1) / ids
    expected = (1 - smoothing) * expected + smoothing * even
  nats = normaliser - expected
  if config.z_loss:
    nats += config.z_loss * jnp.square(normaliser)
  return nats


def r_drop_losses(
  logits: Float[Array, "R t V"],
  targets: Int[Array, "B t"],
  config: LossConfig,
  vocab_size: int,
) -> Float[Array, "B t"]:
  """The mean of two dropouts' losses, and how far apart they are.

  Rows 2i and 2i + 1 of `logits` are of row i. It is half of equation 4 of
  Liang et al. 2021: a loss of one batch, as without it.
  """
  logits = logits.astype(jnp.float32).reshape(-1, 2, *logits.shape[1:])
  nats = token_losses(
    logits, jnp.repeat(targets[:, None], 2, axis=1), config, vocab_size
  )
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  one, other = log_probs[:, 0], log_probs[:, 1]
  # Both divergences in one sum. Padding's log-probabilities are no numbers to
  # subtract; their probability is zero.
  apart = (jnp.exp(one) - jnp.exp(other)) * (one - other)
  real = jnp.arange(logits.shape[-1], dtype=jnp.int32) < vocab_size
  divergence = jnp.sum(jnp.where(real[None, None], apart, 0.0), axis=-1)
  return jnp.mean(nats, axis=1) + config.r_drop / 4 * divergence


def score_in_chunks(
  score: Callable[[Float[Array, "R t V"], Int[Array, "B t"]], Any],
  head: Head,
  states: Float[Array, "R T D"],
  targets: Int[Array, "B T"],
  chunks: int,
) -> Any:
  """`score(head(states), targets)`, a tree of `[B, T]`, chunk by chunk of T.

  `states` may have several rows for each of `targets`. The backward pass
  computes a chunk's logits again. T need not be a multiple of `chunks`.
  """
  if chunks == 1:
    return score(head(states), targets)
  batch, length = targets.shape
  size = -(-length // chunks)

  def cut(x):
    padding = [(0, 0)] * x.ndim
    padding[1] = (0, chunks * size - length)
    x = jnp.pad(x, padding)
    return jnp.moveaxis(x.reshape(-1, chunks, size, *x.shape[2:]), 1, 0)

  def join(y):
    y = jnp.moveaxis(y, 0, 1).reshape(batch, chunks * size)
    return y[:, :length]

  @jax.checkpoint
  def body(_, chunk):
    states, targets = chunk
    return None, score(head(states), targets)

  _, scores = jax.lax.scan(body, None, (cut(states), cut(targets)))
  return jax.tree.map(join, scores)
