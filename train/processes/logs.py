"""The log of each process, in a file of its own in the run's folder."""

import logging
import os
from pathlib import Path

import jax
from absl import logging as absl_logging

from train.cli import signals

FOLDER = "logs"
# Records that wait for the folder of a run that is only being made.
_WAITING = 1000


def begin(workdir: str) -> None:
  """From here on this process's log is also in <workdir>/logs/process-<i>.log.

  So are the sentences with which it ends. A process that is alone, or a folder
  that cannot be written, has no such file.
  """
  if jax.process_count() == 1:
    return
  handler = _LogFile(Path(workdir), jax.process_index())
  handler.setFormatter(absl_logging.PythonFormatter())
  for check in absl_logging.get_absl_handler().filters:
    handler.addFilter(check)
  logging.getLogger().addHandler(handler)


class _LogFile(logging.Handler):
  """Opens its file at the first record for which the run's folder is there."""

  def __init__(self, workdir: Path, process: int):
    super().__init__()
    self._workdir = workdir
    self._path = workdir / FOLDER / f"process-{process:05d}.log"
    self._file: int | None = None
    self._waiting: list[bytes] = []

  def emit(self, record: logging.LogRecord) -> None:
    self._waiting.append(f"{self.format(record)}\n".encode())
    if self._file is None and not self._open():
      del self._waiting[:-_WAITING]
      return
    assert self._file is not None, "it is open"
    try:
      os.write(self._file, b"".join(self._waiting))
    except OSError:
      pass  # A full disk is said by what the run itself writes.
    self._waiting.clear()

  def _open(self) -> bool:
    if not self._workdir.is_dir():
      return False
    try:
      self._path.parent.mkdir(exist_ok=True)
      flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
      self._file = os.open(self._path, flags, 0o666)
    except OSError:
      return False
    signals.say_also_to(self._file)
    return True
