"""Beam search and beam sampling, by the rules of PyTorch transformers 5.

Each source stops by itself: what it finds is what it would find alone.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from encdec.generation.search import hypotheses, sampling, topk
from encdec.generation.search.context import SearchContext, is_end, step_scores
from encdec.generation.search.hypotheses import Hypotheses, take
from encdec.generation.search.length_penalty import length_divisor

# What a text counts that is not one yet: below every sum of log-probabilities.
WORST = -1.0e9


@struct.dataclass
class Finished:
  """The best texts that have ended, best first.

  Attributes:
    real: False where there is none yet.
    parents: the beam that each token continued; None unless it is asked for.
  """

  tokens: Int[Array, "B N C"]
  lengths: Int[Array, "B N"]
  scores: Float[Array, "B N"]
  real: Bool[Array, "B N"]
  parents: Int[Array, "B N C"] | None


@struct.dataclass
class Beams:
  """Running beams, best first, and what has finished.

  Attributes:
    scores: sums of log-probabilities.
    parents: as of `Finished`.
    chosen: which beam each one has just continued.
    improvable: a running beam may still beat the worst that has finished.
    done: nothing more is to be found for a source.
    keys: one a source, for beam sampling.
  """

  texts: Hypotheses
  scores: Float[Array, "B N"]
  parents: Int[Array, "B N C"] | None
  chosen: Int[Array, "B N"]
  finished: Finished
  improvable: Bool[Array, "B"]
  done: Bool[Array, "B"]
  keys: Key[Array, "B"] | None


@struct.dataclass
class Candidates:
  """The best continuations of all beams, best first (or as drawn)."""

  scores: Float[Array, "B M"]
  beams: Int[Array, "B M"]
  tokens: Int[Array, "B M"]


def start(
  texts: Hypotheses, keys: Key[Array, "B"] | None, *, keep_parents: bool
) -> Beams:
  """Before the first step: all beams are one text, so only one counts."""
  batch, width, capacity = texts.tokens.shape
  scores = jnp.full((batch, width), WORST, jnp.float32)
  none = (
    jnp.full((batch, width, capacity), -1, jnp.int32) if keep_parents else None
  )
  return Beams(
    texts=texts,
    scores=scores.at[:, 0].set(0.0),
    parents=none,
    chosen=jnp.zeros((batch, width), jnp.int32),
    finished=Finished(
      tokens=texts.tokens,
      lengths=jnp.zeros((batch, width), jnp.int32),
      scores=scores,
      real=jnp.zeros((batch, width), bool),
      parents=none,
    ),
    improvable=jnp.ones((batch,), bool),
    done=jnp.zeros((batch,), bool),
    keys=keys,
  )


def advance(
  state: Beams,
  logits: Float[Array, "B N V"],
  search: SearchContext,
  next_slot: Int[Array, ""],
) -> tuple[Beams, Float[Array, "B N V"]]:
  """Continues every source's beams by a token; also the step's scores."""
  options, texts = search.options, state.texts
  log_probs = topk.log_softmax(logits, vocab_major=search.vocab_major(logits))
  scores = step_scores(log_probs, texts, search)
  found = candidates(
    texts, scores + state.scores[..., None], search, state.keys
  )
  length = texts.length + 1
  ends = is_end(found.tokens, options.end_tokens)
  ends = ends | (length >= options.max_length)[:, None]
  parents = record(state.parents, found, texts.length)

  finished = _finish(state, found, ends, parents, search)
  open_scores = found.scores + jnp.where(ends, WORST, 0.0)
  _, order = jax.lax.top_k(open_scores, options.num_beams)
  running = dataclasses.replace(
    state,
    texts=hypotheses.append(
      texts, take(found.beams, order), take(found.tokens, order), next_slot
    ),
    scores=take(open_scores, order),
    parents=None if parents is None else take(parents, order),
    chosen=take(found.beams, order),
    finished=finished,
  )
  improvable = _improvable(running, search)
  full = jnp.all(finished.real, axis=-1) & (options.early_stopping == "true")
  done = ~improvable | full | jnp.all(ends, axis=-1)
  return dataclasses.replace(running, improvable=improvable, done=done), scores


def candidates(
  texts: Hypotheses,
  total: Float[Array, "B N V"],
  search: SearchContext,
  keys: Key[Array, "B"] | None,
) -> Candidates:
  """Enough continuations that N are left when all that can end do.

  Args:
    total: sums of log-probabilities.
    keys: to draw without replacement; None takes the best.
  """
  beams, vocab = total.shape[1:]
  count = max(2, 1 + len(search.options.end_tokens)) * beams
  ranked = total
  if keys is not None:
    step = texts.length - search.prompt
    ranked = total + sampling.noise(keys, step, total)
  # Of each beam first: that sorts rows of V, never of N * V.
  each = min(count, vocab)
  rank, tokens = topk.top_k(
    ranked, each, vocab_major=search.vocab_major(ranked)
  )
  _, best = jax.lax.top_k(rank.reshape(rank.shape[0], -1), count)
  values = rank
  if keys is not None:
    values = jnp.take_along_axis(total, tokens, axis=-1)

  def flat(array: Array) -> Array:
    return take(array.reshape(array.shape[0], -1), best)

  return Candidates(
    scores=flat(values), beams=best // each, tokens=flat(tokens)
  )


def record(
  parents: Int[Array, "B N C"] | None,
  found: Candidates,
  length: Int[Array, "B"],
) -> Int[Array, "B M C"] | None:
  """The beams that each candidate has continued, with its last step."""
  if parents is None:
    return None
  before = take(parents, found.beams)
  return hypotheses.write(before, found.beams, length)


def _finish(
  state: Beams,
  found: Candidates,
  ends: Bool[Array, "B M"],
  parents: Int[Array, "B M C"] | None,
  search: SearchContext,
) -> Finished:
  """The best of what had finished and what does now."""
  options, texts = search.options, state.texts
  # Beyond the N best a candidate is only there to be continued.
  first = jnp.arange(ends.shape[1], dtype=jnp.int32) < options.num_beams
  new = ends & first[None]
  length = texts.length + 1
  by_length = length_divisor(length - search.prompt, options)
  scores = found.scores / by_length[:, None]
  closed = ~state.improvable
  if options.early_stopping == "true":
    closed = closed | jnp.all(state.finished.real, axis=-1)
  scores = scores + jnp.where(closed, WORST, 0.0)[:, None]
  scores = scores + jnp.where(new, 0.0, WORST)
  return merge(state.finished, ended(texts, found, scores, new, parents))


def ended(
  texts: Hypotheses,
  found: Candidates,
  scores: Float[Array, "B M"],
  real: Bool[Array, "B M"],
  parents: Int[Array, "B M C"] | None,
) -> Finished:
  """The candidates as texts that have ended, where they are `real`."""
  return Finished(
    tokens=hypotheses.extend(texts, found.beams, found.tokens),
    lengths=jnp.broadcast_to((texts.length + 1)[:, None], real.shape),
    scores=scores,
    real=real,
    parents=parents,
  )


def merge(old: Finished, new: Finished) -> Finished:
  """The best of both, as many as there are old ones."""
  both = jax.tree.map(lambda *ab: jnp.concatenate(ab, axis=1), old, new)
  _, order = jax.lax.top_k(both.scores, old.scores.shape[1])
  return jax.tree.map(lambda array: take(array, order), both)


def hypothetical(
  length: Int[Array, "B"], search: SearchContext
) -> Float[Array, "B"]:
  """The divisor by which a beam's best future score is guessed.

  It is that of its length now, or with early_stopping="never" and a penalty
  that favours long texts that of the longest.
  """
  options = search.options
  if options.early_stopping == "never":
    longest = jnp.broadcast_to(options.max_length - search.prompt, length.shape)
    length = jnp.where(options.length_penalty > 0.0, longest, length)
  return length_divisor(length, options)


def _improvable(state: Beams, search: SearchContext) -> Bool[Array, "B"]:
  """Whether a running beam could beat the worst that has finished."""
  length = state.texts.length - search.prompt
  best = state.scores[:, 0] / hypothetical(length, search)
  worst = jnp.where(
    state.finished.real,
    jnp.min(state.finished.scores, axis=1, keepdims=True),
    WORST,
  )
  return state.improvable & jnp.any(best[:, None] > worst, axis=1)
