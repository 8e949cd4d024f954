"""Goodput: the part of a run's wall time that steps took, over all its starts.

The rest is lost to causes: `start`, `compile`, `data` (devices that wait for a
batch), `save`, `evaluation`, `restart` (from the last sign of a start that was
ended to the next one), and `lost` (steps that were done again, since they were
not saved). Each start of the run is a record of goodput.json in its folder,
which is written with the rows of metrics, and at least every RECORD_SECONDS: a
kill loses no more than that.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from absl import logging

from train.cli import exit_status
from train.workdir import json_files

FILE = "goodput.json"
RECORD_SECONDS = 10.0
# Not more often, however short steps are.
_LEAST_SECONDS = 1.0
CAUSES = ("start", "compile", "data", "save", "evaluation", "restart", "lost")
# Saved steps that a start remembers; more than are ever kept.
_REMEMBERED = 64
# After these nobody wanted the run to go on: what follows is no loss.
_WANTED = (0, exit_status.INTERRUPTED)

Record = dict[str, Any]


class Goodput:
  """Counts the seconds of this start, each for one cause; a context manager.

  All processes have one; the first one writes. Nothing is written before
  `begin`: a command that finds nothing to do is no start.
  """

  def __init__(self, folder: Path, began: float):
    self._path = folder / FILE
    self._began = began
    self._lock = threading.Lock()
    self._causes = ["start"]
    self._seconds: dict[str, float] = dict.fromkeys(("step", *CAUSES), 0.0)
    self._seconds["start"] = time.time() - began
    self._since = self._recorded = time.perf_counter()
    self._earlier: list[Record] = []
    self._first = 0
    self._saved: list[tuple[int, float]] = []
    self._status: int | None = None
    self._recorder: threading.Thread | None = None
    self._writing = threading.Lock()
    self._begun, self._closed = threading.Event(), threading.Event()

  def __enter__(self) -> "Goodput":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._closed.set()
    if self._recorder is not None:
      # Else its older record might replace the last one.
      self._recorder.join()
    if self._begun.is_set():
      self._record()

  def begin(self, step: int) -> None:
    """The state of `step` is there; what was done after it was lost."""
    self._first = step
    self._saved = [(step, self._seconds["step"])]
    if jax.process_index() == 0:
      self._earlier = read(self._path)
      losses = lost(self._earlier, step)
      for record, seconds in zip(self._earlier, losses, strict=True):
        record["seconds"]["step"] -= seconds
        record["seconds"]["lost"] += seconds
      last = self._earlier[-1] if self._earlier else None
      if last is not None and last["status"] not in _WANTED:
        self._seconds["restart"] = max(0.0, self._began - last["seen"])
    self._begun.set()
    self._record()
    if jax.process_index() == 0:
      recorder = threading.Thread(target=self._keep_recording, daemon=True)
      recorder.start()
      self._recorder = recorder

  @contextlib.contextmanager
  def spent(self, cause: str) -> Iterator[None]:
    """What happens inside counts for this cause, or for one inside of it."""
    self._turn(lambda: self._causes.append(cause))
    try:
      yield
    finally:
      self._turn(self._causes.pop)

  def move(self, cause: str, seconds: float) -> None:
    """Seconds of steps were of another cause."""
    with self._lock:
      self._seconds["step"] -= seconds
      self._seconds[cause] += seconds

  def saved(self, step: int) -> None:
    """A state of this step is saved, or will be soon."""
    self._turn()
    self._saved = [*self._saved[-_REMEMBERED:], (step, self._seconds["step"])]

  def row(self) -> dict[str, float]:
    """What a row of metrics says of the run so far; it is recorded, too."""
    if time.perf_counter() - self._recorded >= _LEAST_SECONDS:
      self._record()
    totals = sum_up([*self._earlier, self._this()])
    row = {f"time/{name}_seconds": totals[name] for name in CAUSES}
    return row | {"time/goodput": totals["step"] / sum(totals.values())}

  def end(self, status: int = 0) -> None:
    """The run ends with this exit status."""
    self._status = status
    self._record()

  def _turn(self, change: Any = lambda: None) -> None:
    """Counts the time since the last turn for the cause that it had."""
    with self._lock:
      now = time.perf_counter()
      self._seconds[self._causes[-1]] += now - self._since
      self._since = now
      change()

  def _this(self) -> Record:
    self._turn()
    return {
      "began": self._began,
      "seen": time.time(),
      "first_step": self._first,
      "status": self._status,
      "saved": list(self._saved),
      "seconds": dict(self._seconds),
    }

  def _record(self) -> None:
    self._recorded = time.perf_counter()
    if jax.process_index() != 0:
      return
    with self._writing:
      try:
        json_files.write_json(self._path, [*self._earlier, self._this()])
      except OSError:
        pass  # A full disk is said by what the run itself writes.

  def _keep_recording(self) -> None:
    while not self._closed.wait(RECORD_SECONDS):
      self._record()


def read(path: Path) -> list[Record]:
  """The records of a run's starts; none where there is no file of them."""
  try:
    records = json.loads(path.read_text(encoding="utf-8"))
    for record in records:
      sum(record["seconds"][name] for name in ("step", *CAUSES))
      _ = record["began"], record["seen"], record["status"]
      _ = float(record["saved"][0][1])
    return records
  except FileNotFoundError:
    return []
  except (OSError, ValueError, LookupError, TypeError) as error:
    logging.warning("%s cannot be read (%r): goodput begins anew", path, error)
    return []


def lost(records: Sequence[Record], step: int) -> list[float]:
  """Of each start the seconds of steps after `step`, from which all goes on."""
  losses = [0.0] * len(records)
  for index in range(len(records) - 1, -1, -1):
    record = records[index]
    steps, seconds = zip(*record["saved"], strict=True)
    done = record["seconds"]["step"]
    if steps[0] < step:
      # Between two steps that were saved, steps are taken to be equally long.
      losses[index] = max(0.0, done - float(np.interp(step, steps, seconds)))
      break
    losses[index] = done
  return losses


def sum_up(records: Sequence[Record]) -> dict[str, float]:
  """Seconds by cause, over all starts; `step` is what was worth it."""
  return {
    name: sum(record["seconds"][name] for record in records)
    for name in ("step", *CAUSES)
  }


def report(folder: Path) -> None:
  """Prints a line, if the run has a record of its time."""
  records = read(folder / FILE)
  if not records:
    return
  totals = sum_up(records)
  wall = sum(totals.values())
  losses = ", ".join(
    f"{name} {_duration(totals[name])}"
    for name in sorted(CAUSES, key=totals.__getitem__, reverse=True)
    if totals[name] >= 0.5
  )
  starts = "1 start" if len(records) == 1 else f"{len(records)} starts"
  print(
    f"goodput {totals['step'] / wall:.1%} of {_duration(wall)} in {starts}: "
    f"steps {_duration(totals['step'])}" + (f", {losses}" if losses else "")
  )


def _duration(seconds: float) -> str:
  if seconds < 120:
    return f"{seconds:.0f} s"
  minutes = round(seconds / 60)
  return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
