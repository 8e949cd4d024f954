"""Generation for a stream of sources: continuous batching.

A batch's rows end at different times. Here the search stops as soon as enough
rows have ended, and those rows go to sources that wait, so that the device is
never busy with texts that are complete (Yu et al. 2022, "Orca").
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from encdec import sharding
from encdec.generation import programs
from encdec.generation.generate import check, start_prompt
from encdec.generation.scheduler import RowScheduler, SourceT
from encdec.generation.search import loop
from encdec.generation.search.context import SearchContext
from encdec.generation.search.options import SearchOptions
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import CrossCache, Params

# Rows are refilled when this part of them has ended. Each time the host waits
# for the devices, and until then those rows are idle.
REFILLED = 1 / 8


@dataclasses.dataclass(frozen=True)
class Texts:
  """R texts of one source, best first.

  Attributes:
    tokens: the start token included, padding after the end token.
    lengths: up to and with the end token, or to the maximum length.
    scores: as of `Generated`.
  """

  tokens: Int32[np.ndarray, "R C"]
  lengths: Int32[np.ndarray, " R"]
  scores: Float32[np.ndarray, " R"] | None


def generate_stream(
  module: FlaxEncoderDecoderModule,
  decoding_params: Params,
  sources: Iterable[SourceT],
  place: Callable[[Sequence[Any]], dict[str, Array]],
  *,
  options: SearchOptions,
  start_token: int,
  cache_length: int,
  rows: int,
  call: Callable[..., Any] = programs.call,
) -> Iterator[tuple[SourceT, Texts]]:
  """The texts of each source, as they are found: not in order.

  What is found for a source is what `generate` finds. At any time `rows`
  sources are searched and as many wait, encoded; `sources` is read no further.
  Where there are several processes each must exhaust the iterator.

  Args:
    place: makes `encoder_tokens`, `encoder_segments`, `encoder_positions` and,
      where sources have types, `encoder_types` of `rows` sources, None standing
      for a row without one, of segment 0. Their length must not change.
    options: neither sampling nor scores or logits of every step.
    cache_length: as of `generate`.
    rows: a multiple of the batch's shards.
    call: gives `program(*args, **kwargs)` for a jitted program and its
      arguments; it may compile the program first, in its own way.

  Raises:
    ValueError: what `generate` refuses, and the options above.
  """
  prompt = start_prompt(rows, start_token)
  check(module, options, prompt, cache_length)
  _check_options(options)
  search = SearchContext(
    options,
    module.platform,
    vocab_size=module.config.decoder.vocab_size,
    unplaced=module.config.decoder.unplaced_token,
    rules=module.rules,
  )
  shards = sharding.shards("batch", module.rules)
  scheduler: RowScheduler[SourceT] = RowScheduler(iter(sources), rows, shards)
  loop_state = cross = waiting = None
  while True:
    if scheduler.needs_sources and scheduler.fetch():
      # All that wait are encoded, and the memory of those before is free.
      waiting = None
      waiting = _encode(module, decoding_params, place(scheduler.waiting), call)
    if scheduler.free == rows:
      if scheduler.drained:
        return
      scheduler.assign_all()
      # The caches of the batch before are freed first.
      loop_state, cross, waiting = None, waiting, None
      loop_state = call(
        programs.start,
        module,
        cache_length,
        decoding_params,
        *(cross, prompt, search, None),
      )
    elif (taken := scheduler.assign()).max() >= 0:
      loop_state, cross = call(
        programs.refill,
        module,
        *(prompt, search, loop_state, cross, waiting, jnp.asarray(taken)),
      )
    enough = jnp.asarray(_enough(scheduler), jnp.int32)
    loop_state = call(
      programs.run,
      module,
      *(decoding_params, cross, prompt, search, loop_state),
      enough=enough,
    )
    done, texts = _read(module, search, loop_state, call)
    for row, source in scheduler.release(done.tolist()):
      yield source, texts(row)


def _check_options(options: SearchOptions) -> None:
  rules = options.rules
  for refused, name in (
    (options.sample, "sampling"),
    (options.keep_scores, "scores of every step"),
    (options.keep_logits, "logits of every step"),
    (
      rules.encoder_repetition_penalty is not None,
      "encoder_repetition_penalty",
    ),
    (rules.encoder_no_repeat_ngram_size, "encoder_no_repeat_ngram_size"),
  ):
    if refused:
      raise ValueError(f"a stream has no {name}: call generate for a batch")


def _encode(
  module: FlaxEncoderDecoderModule,
  params: Params,
  batch: dict[str, Array],
  call: Callable[..., Any],
) -> CrossCache:
  names = ("encoder_tokens", "encoder_segments", "encoder_positions")
  tokens, segments, positions = (batch[name] for name in names)
  sources = (tokens, segments, positions, None, batch.get("encoder_types"))
  return call(programs.encode, module, params, *sources)


def _enough(scheduler: RowScheduler[Any]) -> int:
  """The number of rows, empty or done, at which rows are refilled."""
  rows = len(scheduler.assigned)
  if scheduler.drained:
    return rows
  return min(rows, scheduler.free + max(1, round(rows * REFILLED)))


def _read(
  module: FlaxEncoderDecoderModule,
  search: SearchContext,
  loop_state: loop.LoopState,
  call: Callable[..., Any],
) -> tuple[np.ndarray, Callable[[int], Texts]]:
  """The rows that are done, and a function from a row to its texts."""
  found = call(programs.result, module, search, loop_state)
  tokens, lengths, scores, done = jax.device_get(
    call(
      programs.replicate,
      (found.tokens, found.lengths, found.scores, loop_state.state.done),
      module.rules,
    )
  )
  returned = search.options.num_returned

  def texts(row: int) -> Texts:
    # Copies: what is kept of a row must not keep the batch.
    mine = slice(row * returned, (row + 1) * returned)
    return Texts(
      tokens[mine].copy(),
      lengths[mine].copy(),
      None if scores is None else scores[mine].copy(),
    )

  return done, texts
