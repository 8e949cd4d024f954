"""The device loop: steps of the model and of a search until all is found."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key

from encdec import sharding
from encdec.generation.search import beam, diverse_beam, hypotheses, sampling
from encdec.generation.search.context import SearchContext
from encdec.generation.search.hypotheses import Hypotheses, select_rows
from encdec.generation.search.options import SearchOptions
from encdec.types import DecodeView, SelfCache

Step = Callable[
  [Int[Array, "B N"], DecodeView, SelfCache],
  tuple[Float[Array, "B N V"], SelfCache],
]
State = sampling.Samples | beam.Beams | diverse_beam.Groups


@struct.dataclass
class LoopState:
  """A search under way.

  Attributes:
    slot: where the next step writes its keys, the same in every row.
    scores, logits: of each step so far; None unless they are kept.
  """

  state: State
  cache: SelfCache
  slot: Int[Array, ""]
  scores: Float[Array, "B T N V"] | None = None
  logits: Float[Array, "B T N V"] | None = None


def start(
  texts: Hypotheses, options: SearchOptions, keys: Key[Array, "B"] | None
) -> State:
  """The search that the options ask for, before its first step."""
  if options.num_groups > 1:
    return diverse_beam.start(
      texts, options.num_groups, keep_parents=options.keep_scores
    )
  if options.num_beams > 1:
    return beam.start(texts, keys, keep_parents=options.keep_scores)
  return sampling.start(texts, keys, sum_scores=options.sum_log_probs)


def run(
  decode_step: Step,
  loop_state: LoopState,
  search: SearchContext,
  enough: Int[Array, ""],
) -> LoopState:
  """Searches until `enough` sources are done."""
  return jax.lax.while_loop(
    lambda loop_state: jnp.sum(loop_state.state.done) < enough,
    lambda loop_state: step(decode_step, loop_state, search),
    loop_state,
  )


def step(
  decode_step: Step, loop_state: LoopState, search: SearchContext
) -> LoopState:
  """One token more for every text of a source that is not done."""
  before, slot = loop_state.state, loop_state.slot
  texts = before.texts
  logits, cache = decode_step(
    hypotheses.last_tokens(texts),
    hypotheses.view(texts, slot, search.unplaced),
    loop_state.cache,
  )
  next_slot = (slot + 1) % texts.readable.shape[1]
  state, scores = sharding.by_rows(
    _advance,
    (before, logits, search.source, search.source_real),
    (dataclasses.replace(search, source=None, source_real=None), next_slot),
    search.rules,
  )
  if not isinstance(state, sampling.Samples) and texts.ancestors is None:
    reorder = functools.partial(_reordered, parents=state.chosen)
    cache = jax.tree.map(reorder, cache)
  at = slot - (search.prompt - 1)
  return LoopState(
    state=state,
    cache=cache,
    slot=next_slot,
    scores=_record(loop_state.scores, scores, at),
    logits=_record(loop_state.logits, logits, at),
  )


def _advance(rows: Any, shared: Any) -> tuple[State, Float[Array, "B N V"]]:
  """A search's own step; a source that is done keeps what it has."""
  before, logits, source, source_real = rows
  search, next_slot = shared
  search = dataclasses.replace(search, source=source, source_real=source_real)
  if isinstance(before, sampling.Samples):
    state, scores = sampling.advance(before, logits, search, next_slot)
  elif isinstance(before, beam.Beams):
    state, scores = beam.advance(before, logits, search, next_slot)
  else:
    state, scores = diverse_beam.advance(before, logits, search, next_slot)
  state = jax.tree.map(
    lambda new, old: select_rows(before.done, old, new), state, before
  )
  return state, scores


def _reordered(
  held: Float[Array, "B GN T K"], parents: Int[Array, "B N"]
) -> Float[Array, "B GN T K"]:
  batch, rows, slots, width = held.shape
  beams = parents.shape[1]
  grouped = held.reshape(batch, rows // beams, beams, slots, width)
  at = parents[:, None, :, None, None]
  return jnp.take_along_axis(grouped, at, axis=2).reshape(held.shape)


def _record(
  held: Float[Array, "B T N V"] | None,
  new: Float[Array, "B N V"],
  at: Int[Array, ""],
) -> Float[Array, "B T N V"] | None:
  if held is None:
    return None
  return jax.lax.dynamic_update_index_in_dim(held, new, at, axis=1)
