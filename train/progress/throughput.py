"""How fast a run is: useful tokens a second, share of the chip's peak, ETA."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from encdec.config import EncDecConfig, HeadKind, StackConfig

T = TypeVar("T")


def train_step_flops(
  config: EncDecConfig, batch_size: int, source_length: int, target_length: int
) -> float:
  """FLOPs that one update needs: matrix products, forward and backward.

  Padding counts, for it is computed; recomputation, masked-out halves of
  causal attention and padding rows of a vocabulary do not, or do as in a full
  product (PaLM, arXiv 2204.02311, appendix B).
  """
  encoder, decoder = config.encoder, config.decoder
  s, t = source_length, target_length
  flops = encoder.num_layers * (
    _projections(encoder, s, s) + _products(encoder, s, s) + _mlp(encoder, s)
  )
  if config.needs_projection:
    flops += 2 * s * encoder.width * decoder.width
  flops += decoder.num_layers * (
    _projections(decoder, t, t)
    + _products(decoder, t, t)
    + _projections(decoder, t, s)
    + _products(decoder, t, s)
    + _mlp(decoder, t)
  )
  if decoder.head == HeadKind.TRANSFORM:
    flops += 2 * t * decoder.width * decoder.embedding_width
  flops += 2 * t * decoder.embedding_width * decoder.vocab_size
  for stack, length in ((encoder, s), (decoder, t)):
    if stack.embedding_projection:
      flops += 2 * length * stack.embedding_width * stack.width
  # The backward pass has two products for each one of the forward pass.
  return 3.0 * batch_size * flops


def _projections(stack: StackConfig, queries: int, keys: int) -> int:
  """Query and output for the queries, key and value for the keys."""
  heads = queries * stack.num_heads + keys * stack.num_kv_heads
  return 2 * 2 * heads * stack.width * stack.head_width


def _products(stack: StackConfig, queries: int, keys: int) -> int:
  """Scores, and their mean of the values."""
  return 2 * 2 * stack.num_heads * stack.head_width * queries * keys


def _mlp(stack: StackConfig, length: int) -> int:
  return 2 * 2 * length * stack.width * stack.mlp_width


class Speed:
  """Training's own pace: evaluation, saving and compiling are paused.

  Args:
    peak: FLOP/s of all devices, as of `total_peak_flops`; None: not known, and
      `read` has no `time/mfu`.
    waited: is told seconds in which devices waited for a batch, as they pass.
  """

  def __init__(
    self,
    peak: float | None,
    waited: Callable[[float], None] = lambda seconds: None,
  ):
    self._peak = peak
    self._tell_waited = waited
    self._restart()

  def step(self, tokens: float, flops: float) -> None:
    """Counts a finished step.

    Args:
      tokens: source and target, without padding.
      flops: see `train_step_flops`.
    """
    self._steps += 1
    self._tokens += tokens
    self._flops += flops

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """What happens inside is not training."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._start += time.perf_counter() - start

  def waiting(
    self, batches: Iterable[T], idle_since: Callable[[], float]
  ) -> Iterator[T]:
    """The same batches; the time is counted in which devices wait for one.

    Args:
      idle_since: when the devices ended the step that they were at last, on
        the clock of `time.perf_counter`; infinity: they are at it still.
    """
    iterator = iter(batches)
    while True:
      start = time.perf_counter()
      try:
        batch = next(iterator)
      except StopIteration:
        return
      idle = max(start, idle_since())
      seconds = max(0.0, time.perf_counter() - idle)
      self._waited += seconds
      self._tell_waited(seconds)
      yield batch

  def read(self) -> dict[str, float]:
    """Means since the last reading, which ends here; empty before any step."""
    if not self._steps:
      return {}
    seconds = time.perf_counter() - self._start
    values = {
      "time/tokens_per_second": self._tokens / seconds,
      "time/step_seconds": seconds / self._steps,
      "time/data_wait": self._waited / seconds,
    }
    if self._peak is not None:
      values["time/mfu"] = self._flops / seconds / self._peak
    self._restart()
    return values

  def _restart(self) -> None:
    self._start = time.perf_counter()
    self._steps = 0
    self._tokens = self._flops = self._waited = 0.0
