"""The metrics of a run: `metrics.jsonl`, one object a line, and TensorBoard."""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

from data.io import atomic_write
from data.io.error_text import DAMAGE, quoted

# Protocol buffers make their classes when they are imported.
_proto: Any = event_pb2
METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
_FLUSH_SECONDS = 120.0


class _Board:
  """TensorBoard's file, written by whoever calls.

  tensorboardX's own writer has a thread, which a full disk would end; the run
  would then wait for it for ever.
  """

  def __init__(self, folder: pathlib.Path, first_step: int):
    self._folder = folder
    self._flushed = -math.inf
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write.naming(folder):
      self._events = EventsWriter(str(folder / "events"))
      # TensorBoard forgets what an earlier run wrote from here on.
      start = _proto.SessionLog(status=_proto.SessionLog.START)
      self._events.write_event(_proto.Event(step=first_step, session_log=start))

  def write(self, step: int, numbers: Mapping[str, int | float]) -> None:
    now = time.time()
    with atomic_write.naming(self._folder):
      for name, value in numbers.items():
        summary = scalar(name, value)
        event = _proto.Event(wall_time=now, step=step, summary=summary)
        self._events.write_event(event)
      if now - self._flushed >= _FLUSH_SECONDS:
        self._events.flush()
        self._flushed = now

  def close(self) -> None:
    with atomic_write.naming(self._folder):
      self._events.close()


class MetricsWriter:
  """Writes rows `{"step": n, "section/name": value, ...}`, a step once.

  Whatever depends on the clock belongs under `time/`; the rest is equal from
  run to run. Only one process of a run has an enabled writer; the others'
  methods do nothing.
  """

  def __init__(
    self, workdir: str | os.PathLike[str], enabled: bool = True
  ) -> None:
    self._workdir = pathlib.Path(workdir).absolute()
    self._path = self._workdir / METRICS_FILE
    self._enabled = enabled
    self._last = -1
    self._out: tuple[BinaryIO, _Board] | None = None

  def cut(self, step: int) -> None:
    """Begins after `step`: later rows, and one torn by a kill, are dropped.

    Call it once, before the first row; -1 drops all. Raises ValueError for a
    line in the middle that is no row.
    """
    if not self._enabled:
      return
    self.close()
    if self._path.exists():
      rows = [row for row in read_rows(self._path) if row["step"] <= step]
      text = "".join(json.dumps(row) + "\n" for row in rows)
      atomic_write.write_text(self._path, text)
    self._last = step
    self._workdir.mkdir(parents=True, exist_ok=True)
    board = _Board(self._workdir / TENSORBOARD_FOLDER, step + 1)
    # Unbuffered: one system call a row, and only the last can be torn.
    self._out = open(self._path, "ab", buffering=0), board

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Adds all that is known of a step; a kill afterwards does not lose it.

    Values are numbers; one that is not finite, which JSON cannot hold, is
    written as null. Raises ValueError for a step that is not later than the
    last one.
    """
    if not self._enabled:
      return
    if self._out is None:
      raise ValueError("call cut(step) before the first row")
    if step <= self._last:
      raise ValueError(
        f"a row of step {step} after step {self._last}: gather all values of "
        "a step and write them once"
      )
    numbers = {name: _number(values[name]) for name in sorted(values)}
    row = {"step": step} | {
      name: value if math.isfinite(value) else None
      for name, value in numbers.items()
    }
    stream, board = self._out
    with atomic_write.naming(self._path):
      _write_whole(stream, (json.dumps(row) + "\n").encode())
    board.write(step, numbers)
    self._last = step

  def close(self) -> None:
    if self._out is not None:
      stream, board = self._out
      stream.close()
      board.close()
      self._out = None


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The rows of a metrics file, without a last line that a kill has torn.

  Raises ValueError, naming the line, for anything else that is no row.
  """
  rows = []
  lines = pathlib.Path(path).read_bytes().split(b"\n")
  for number, line in enumerate(lines[:-1], start=1):
    try:
      row = json.loads(line)
      int(row["step"])
    except (*DAMAGE, OverflowError) as error:
      raise ValueError(
        f"{path}, line {number} is no row of metrics: {quoted(line)}; remove "
        "the line or the file"
      ) from error
    rows.append(row)
  return rows


def _write_whole(stream: BinaryIO, line: bytes) -> None:
  """Writes all of it, or raises: a disk that becomes full takes a part."""
  while line:
    line = line[stream.write(line) :]


def _number(value: Any) -> int | float:
  """Python's own number, so that a row's text depends on the value alone."""
  return value if isinstance(value, int) else float(value)
