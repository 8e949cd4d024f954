"""Sampling, and greedy search, which takes the best: a token a step."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from encdec.generation.search import hypotheses, topk
from encdec.generation.search.context import SearchContext, is_end, step_scores
from encdec.generation.search.hypotheses import Hypotheses
from encdec.generation.search.length_penalty import length_divisor


@struct.dataclass
class Samples:
  """Texts that do not know of each other.

  Attributes:
    lengths: up to and with the end token.
    done: all texts of a source have ended.
    keys: one a source; None in greedy search.
    scores: sums of log-probabilities; None unless they are asked for.
  """

  texts: Hypotheses
  ended: Bool[Array, "B N"]
  lengths: Int[Array, "B N"]
  done: Bool[Array, "B"]
  keys: Key[Array, "B"] | None
  scores: Float[Array, "B N"] | None


def start(
  texts: Hypotheses, keys: Key[Array, "B"] | None, *, sum_scores: bool
) -> Samples:
  """Before the first step."""
  batch, width, _ = texts.tokens.shape
  return Samples(
    texts=texts,
    ended=jnp.zeros((batch, width), bool),
    lengths=jnp.broadcast_to(texts.length[:, None], (batch, width)),
    done=jnp.zeros((batch,), bool),
    keys=keys,
    scores=jnp.zeros((batch, width), jnp.float32) if sum_scores else None,
  )


def advance(
  state: Samples,
  logits: Float[Array, "B N V"],
  search: SearchContext,
  next_slot: Int[Array, ""],
) -> tuple[Samples, Float[Array, "B N V"]]:
  """Adds a token to each text that has not ended; also the step's scores."""
  options = search.options
  scores = step_scores(logits, state.texts, search)
  drawn = scores
  if options.sample:
    assert state.keys is not None, "sampling draws with keys"
    drawn = scores + noise(
      state.keys, state.texts.length - search.prompt, scores
    )
  tokens = topk.argmax(
    drawn, search.platform, vocab_major=search.vocab_major(drawn)
  )
  total = state.scores
  if total is not None:
    own = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    own = own - jax.nn.logsumexp(logits, axis=-1)
    total = total + jnp.where(state.ended, 0.0, own)
  pad = options.pad_token.astype(jnp.int32)
  tokens = jnp.where(state.ended, pad, tokens)
  ended = state.ended | is_end(tokens, options.end_tokens)
  texts = hypotheses.append(state.texts, None, tokens, next_slot)
  length = texts.length
  return dataclasses.replace(
    state,
    texts=texts,
    ended=ended,
    lengths=jnp.where(state.ended, state.lengths, length[:, None]),
    done=jnp.all(ended, axis=-1) | (length >= options.max_length),
    scores=total,
  ), scores


def final_scores(
  state: Samples, search: SearchContext
) -> Float[Array, "B N"] | None:
  """Sums of log-probabilities over their lengths' penalties."""
  if state.scores is None:
    return None
  lengths = state.lengths - search.prompt
  return state.scores / length_divisor(lengths, search.options)


def noise(
  keys: Key[Array, "B"], step: Int[Array, "B"], scores: Float[Array, "B N V"]
) -> Float[Array, "B N V"]:
  """Gumbel noise, by which the best of the sum is a draw from the softmax.

  The k best are k draws without replacement, in their order.
  """

  def row(key, step):
    return jax.random.gumbel(
      jax.random.fold_in(key, step), scores.shape[1:], jnp.float32
    )

  return jax.vmap(row)(keys, step)
