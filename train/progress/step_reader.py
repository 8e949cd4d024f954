"""The step reader: metrics of each step, read from the device one step late."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
from absl import logging

from train.costs.chips import total_peak_flops
from train.errors import Failure
from train.progress.progress_bar import ProgressBar
from train.progress.throughput import Speed

COUNTS = ("pairs", "source_tokens", "target_tokens")


class NonFiniteLoss(Failure):
  """A loss or gradient was infinite or not a number; nothing was updated."""


@dataclasses.dataclass
class RunTotals:
  """Updates done, and what they saw in all."""

  step: int = 0
  pairs: float = 0.0
  source_tokens: float = 0.0
  target_tokens: float = 0.0

  def add(self, step: int, values: Mapping[str, float]) -> None:
    self.step = step
    for name in COUNTS:
      setattr(self, name, getattr(self, name) + values[name])


class StepReader:
  """Reads the metrics of the step before, while the device does the next.

  Args:
    log_every: steps between rows; the last of `total` has one too.
    explain: the end of the message about a step that was not finite.
    waited: is told seconds in which devices waited for a batch.
  """

  def __init__(
    self,
    progress: RunTotals,
    *,
    total: int,
    log_every: int,
    explain: Callable[[int], str],
    waited: Callable[[float], None] = lambda seconds: None,
  ):
    self.progress = progress
    self.total = total
    self.log_every = log_every
    self.explain = explain
    self.pending: tuple[int, Mapping[str, jax.Array], float] | None = None
    # A thread that waits for each step, to know when it ended.
    self._watch = futures.ThreadPoolExecutor(1, "step-end")
    self._ended: futures.Future[float] | None = None
    self.chief = jax.process_index() == 0
    self.speed = Speed(_known_peak(jax.devices(), self.chief), waited)
    self.bar = ProgressBar(total, progress.step, self.chief)

  def put(
    self, step: int, metrics: Mapping[str, jax.Array], flops: float
  ) -> None:
    """The step just launched; the one before must have been read."""
    self.pending = (step, metrics, flops)
    self._ended = self._watch.submit(_end_of, metrics)

  def idle_since(self) -> float:
    """When the last step ended, as `Speed.waiting` asks."""
    if self._ended is None:
      return -math.inf
    return self._ended.result() if self._ended.done() else math.inf

  def read(self) -> dict[str, float]:
    """Waits for the pending step; its row, empty where none is due.

    Raises:
      NonFiniteLoss: naming the step, its examples and the last checkpoint.
    """
    if self.pending is None:
      return {}
    step, metrics, flops = self.pending
    self.pending = None
    values = {k: float(v) for k, v in jax.device_get(metrics).items()}
    if not values.pop("finite"):
      raise NonFiniteLoss(
        f"step {step}: loss {values['loss']}, norm of the gradient "
        f"{values['grad_norm']}; {self.explain(step)}"
      )
    self.progress.add(step, values)
    self.speed.step(values["source_tokens"] + values["target_tokens"], flops)
    if step % self.log_every and step != self.total:
      return {}
    totals = {name: getattr(self.progress, name) for name in COUNTS}
    row = {f"train/{k}": v for k, v in (values | totals).items()}
    row |= self.speed.read()
    rate = row.get("time/tokens_per_second", 0.0)
    self.bar.update(step, values["loss"], rate)
    wait = row.get("time/data_wait", 0.0)
    shown = {"loss": values["loss"], "tokens/s": rate, "data wait": wait}
    self.say(step, shown)
    return row

  def say(self, step: int, values: Mapping[str, float]) -> None:
    """A line for whoever watches without a terminal."""
    if self.chief:
      shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
      logging.info("step %d of %d: %s", step, self.total, shown)

  def close(self) -> None:
    self._watch.shutdown(wait=False)
    self.bar.close()


def _known_peak(devices: Sequence[Any], chief: bool) -> float | None:
  """`total_peak_flops`; says of accelerators that it is not known."""
  peak = total_peak_flops(devices)
  # Nobody looks for the share of a CPU's peak.
  if peak is None and chief and devices[0].platform != "cpu":
    kinds = sorted({device.device_kind for device in devices})
    logging.info(
      "metrics.jsonl will have no time/mfu: the peak FLOP/s of %s is not known "
      "(train/costs/chips.py has those that are)",
      " and ".join(map(repr, kinds)),
    )
  return peak


def _end_of(metrics: Mapping[str, jax.Array]) -> float:
  """When they were computed."""
  jax.block_until_ready(metrics)
  return time.perf_counter()
