"""Diverse beam search (Vijayakumar et al. 2018): groups of different beams.

The groups choose one after the other; each is penalised for the tokens that
those before it have just chosen. Within a group the rules are those that
transformers had up to 4.56 in its library: they differ from beam search's of
transformers 5 in what may still be improved, and in that beams which run at
the maximum length count only in a group that is not done.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from encdec.generation.search import beam, hypotheses
from encdec.generation.search.beam import WORST, Candidates, Finished
from encdec.generation.search.context import SearchContext, is_end, step_scores
from encdec.generation.search.hypotheses import Hypotheses, take
from encdec.generation.search.length_penalty import length_divisor


@struct.dataclass
class Groups:
  """G groups of M beams, N = G * M, group by group.

  Attributes:
    scores, parents, chosen, finished: as of `beam.Beams`; what has finished is
      best first within its group.
    group_done: nothing more is to be found for a group.
    done: for none of a source's.
  """

  texts: Hypotheses
  scores: Float[Array, "B N"]
  parents: Int[Array, "B N C"] | None
  chosen: Int[Array, "B N"]
  finished: Finished
  group_done: Bool[Array, "B G"]
  done: Bool[Array, "B"]


@struct.dataclass
class _Group:
  """One group's part of `Groups`, or what becomes of it in a step."""

  tokens: Int[Array, "B M"]
  scores: Float[Array, "B M"]
  parents: Int[Array, "B M C"] | None
  chosen: Int[Array, "B M"]
  finished: Finished
  done: Bool[Array, "B"]


def start(texts: Hypotheses, groups: int, *, keep_parents: bool) -> Groups:
  """Before the first step: one beam of each group counts."""
  beams = beam.start(texts, None, keep_parents=keep_parents)
  batch, width = beams.scores.shape
  first = jnp.arange(width, dtype=jnp.int32) % (width // groups) == 0
  scores = jnp.where(first[None], 0.0, WORST).astype(jnp.float32)
  return Groups(
    texts=texts,
    scores=jnp.broadcast_to(scores, (batch, width)),
    parents=beams.parents,
    chosen=beams.chosen,
    finished=beams.finished,
    group_done=jnp.zeros((batch, groups), bool),
    done=beams.done,
  )


def advance(
  state: Groups,
  logits: Float[Array, "B N V"],
  search: SearchContext,
  next_slot: Int[Array, ""],
) -> tuple[Groups, Float[Array, "B N V"]]:
  """Continues every group's beams by a token; also the step's scores."""
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  groups = state.group_done.shape[1]
  size = state.scores.shape[1] // groups
  found: list[_Group] = []
  all_scores = []
  for index in range(groups):
    part = slice(index * size, (index + 1) * size)
    tokens = state.texts.tokens[:, part]
    texts = dataclasses.replace(state.texts, tokens=tokens, ancestors=None)
    before = _chosen_before(found, state, search)
    scores = step_scores(log_probs[:, part], texts, search, chosen=before)
    all_scores.append(scores)
    found.append(_advance(state, index, part, texts, scores, search))

  def joined(name: str) -> Array:
    return jnp.concatenate([getattr(group, name) for group in found], axis=1)

  chosen = joined("chosen")
  finished = jax.tree.map(
    lambda *parts: jnp.concatenate(parts, axis=1),
    *(group.finished for group in found),
  )
  group_done = jnp.stack([group.done for group in found], axis=1)
  texts = hypotheses.append(state.texts, chosen, joined("tokens"), next_slot)
  at_end = texts.length >= search.options.max_length
  return Groups(
    texts=texts,
    scores=joined("scores"),
    parents=None if state.parents is None else joined("parents"),
    chosen=chosen,
    finished=finished,
    group_done=group_done,
    done=jnp.all(group_done, axis=1) | at_end,
  ), jnp.concatenate(all_scores, axis=1)


def _chosen_before(
  found: list[_Group], state: Groups, search: SearchContext
) -> Int[Array, "B M"] | None:
  """Tokens of this step in the groups before; a group that is done pads."""
  if not found:
    return None
  pad = search.options.pad_token.astype(jnp.int32)
  return jnp.concatenate(
    [
      jnp.where(state.group_done[:, index, None], pad, group.tokens)
      for index, group in enumerate(found)
    ],
    axis=1,
  )


def _advance(
  state: Groups,
  index: int,
  part: slice,
  texts: Hypotheses,
  scores: Float[Array, "B M V"],
  search: SearchContext,
) -> _Group:
  """One group's step, by the rules of its own beam search."""
  options = search.options
  size = scores.shape[1]
  total = scores + state.scores[:, part, None]
  found = beam.candidates(texts, total, search, None)
  # Parents are counted over all beams, not over the group's.
  own = dataclasses.replace(found, beams=found.beams + part.start)
  parents = beam.record(state.parents, own, texts.length)
  ends = is_end(found.tokens, options.end_tokens)
  done = state.group_done[:, index]
  old = jax.tree.map(lambda array: array[:, part], state.finished)

  length = texts.length + 1
  by_length = length_divisor(length - search.prompt, options)[:, None]
  first = jnp.arange(ends.shape[1], dtype=jnp.int32) < size
  finished = _add(
    old, texts, found, found.scores / by_length,
    ends & first[None] & ~done[:, None], parents,
  )  # fmt: skip
  done = done | _is_done(finished, found, length - search.prompt, search)

  _, order = jax.lax.top_k(found.scores + jnp.where(ends, WORST, 0.0), size)
  running = jax.tree.map(lambda array: take(array, order), found)
  kept = None if parents is None else take(parents, order)
  at_end = (length >= options.max_length) & ~done
  finished = _add(
    finished, texts, running, running.scores / by_length,
    jnp.broadcast_to(at_end[:, None], running.scores.shape), kept,
  )  # fmt: skip
  return _Group(
    tokens=running.tokens,
    scores=running.scores,
    parents=kept,
    chosen=running.beams + part.start,
    finished=finished,
    done=done,
  )


def _add(
  old: Finished,
  texts: Hypotheses,
  found: Candidates,
  scores: Float[Array, "B M"],
  new: Bool[Array, "B M"],
  parents: Int[Array, "B M C"] | None,
) -> Finished:
  """The best of what had finished and the candidates that are `new`."""
  scores = jnp.where(new, scores, 2 * WORST)
  return beam.merge(old, beam.ended(texts, found, scores, new, parents))


def _is_done(
  finished: Finished,
  found: Candidates,
  length: Int[Array, "B"],
  search: SearchContext,
) -> Bool[Array, "B"]:
  """Whether a group is full and no candidate could beat its worst."""
  full = jnp.all(finished.real, axis=1)
  if search.options.early_stopping == "true":
    return full
  attainable = jnp.max(found.scores, axis=1) / beam.hypothetical(length, search)
  return full & (jnp.min(finished.scores, axis=1) >= attainable)


def best(state: Groups, count: int) -> Finished:
  """The best texts of all groups."""
  _, order = jax.lax.top_k(state.finished.scores, count)
  return jax.tree.map(lambda array: take(array, order), state.finished)
