"""The output of a prediction: lines that a crash cannot lose or double."""

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax
from absl import logging

from data.io import atomic_write
from data.io.error_text import few, plain, quoted
from train.cli import paths
from train.errors import Failure, Refusal
from train.processes import agreement
from train.workdir import json_files, recorded_config


@dataclasses.dataclass(frozen=True)
class Fields:
  """The names that an output's objects give to a text and what was found."""

  source: str = "source"
  prediction: str = "prediction"

  @property
  def found(self) -> tuple[str, str]:
    """What is added to the object of a source."""
    return self.prediction, "score"


class Output:
  """`path`, written as `path`.partial and renamed when it is complete.

  `path`.made_by says which weights, settings and inputs made it. All processes
  call every method; the first one writes, and locks the partial file, so that
  a second command for the same output is refused (where the file system has
  locks; a killed process holds none).
  """

  def __init__(self, path: Path, made_by: Mapping[str, Any], fields: Fields):
    self.path, self.fields = path, fields
    self.partial = path.with_name(f"{path.name}.partial")
    self.label = path.with_name(f"{path.name}.made_by")
    self.made_by = json.loads(json.dumps(made_by))
    self.chief = jax.process_index() == 0
    self.done = self.total = 0
    self._file: IO[bytes] | None = None

  def open(
    self, *, overwrite: bool, total: int, given: Iterable[Mapping[str, Any]]
  ) -> int:
    """How many lines are there already, `total` when it is complete.

    Args:
      given: what the objects of all lines hold beside what was found; read as
        far as there are lines already.

    Raises:
      Refusal: something else made this output, and `overwrite` is False; or
        another command is writing it.
    """
    self.total = total
    self.done = agreement.on_chief(
      f"opening {self.path}", lambda: self._open(overwrite, iter(given))
    )
    return self.done

  def _open(self, overwrite: bool, given: Iterator[Mapping[str, Any]]) -> int:
    if self.path.is_dir():
      raise Refusal(f"--output={self.path} is a folder: name a file in it")
    if self.partial.exists():
      self._file = self._locked()
    if self.path.exists() or self.partial.exists():
      if not (other := self._difference()):
        if not self.path.exists():
          return self._keep(given)
        # Left by a machine that failed, or by hand; the output is complete.
        self.close()
        self.partial.unlink(missing_ok=True)
        return self.total
      if not overwrite:
        self.close()
        raise Refusal(
          f"--output={self.path} was made by something else ({other}): pass "
          "--overwrite, or choose another --output"
        )
    with paths.making(f"--output={self.path}"):
      self.path.parent.mkdir(parents=True, exist_ok=True)
    if self._file is None:
      self._file = self._locked()
    # In this order a label never stands beside what it did not make.
    self.path.unlink(missing_ok=True)
    self._file.truncate(0)
    self.label.unlink(missing_ok=True)
    json_files.write_json(self.label, self.made_by)
    return 0

  def _locked(self) -> IO[bytes]:
    """The partial file, which no other command has."""
    file = open(self.partial, "ab+")
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      mine = False
    except OSError as error:
      logging.warning(
        "%s: this file system has no locks (%s): nothing keeps a second "
        "command from --output=%s; start none",
        *(self.partial, error, self.path),
      )
      return file
    else:
      mine = self._is_there(file)
    if not mine:
      file.close()
      raise Refusal(
        f"--output={self.path} is being written by another command: wait for "
        "it, or choose another --output"
      )
    return file

  def _is_there(self, file: IO[bytes]) -> bool:
    """Whether whoever had the lock has not renamed the file since."""
    try:
      return os.fstat(file.fileno()).st_ino == self.partial.stat().st_ino
    except FileNotFoundError:
      return False

  def close(self) -> None:
    """Lets another command have it."""
    if self._file is not None:
      self._file.close()
      self._file = None

  def _difference(self) -> str:
    """What differs from what made the file that is there."""
    if not self.label.exists():
      return f"there is no {self.label.name} beside it"
    try:
      old = json.loads(self.label.read_text(encoding="utf-8"))
      changes = recorded_config.difference(old, self.made_by)
    except (ValueError, AttributeError, TypeError):
      return f"{self.label.name} is damaged"
    return few(
      f"{plain(name)}: {quoted(old)} -> {quoted(new)}"
      for name, (old, new) in changes.items()
    )

  def _keep(self, given: Iterator[Mapping[str, Any]]) -> int:
    """Cuts the partial file to the whole lines that it begins with."""
    assert self._file is not None, "it exists"
    done = end = 0
    self._file.seek(0)
    for line, expected in zip(self._file, given, strict=False):
      if not line.endswith(b"\n") or self._given(line) != expected:
        break
      done, end = done + 1, end + len(line)
    self._file.truncate(end)
    return done

  def _given(self, line: bytes) -> dict[str, Any] | None:
    """A line's object without what was found; None where it is damaged."""
    try:
      row = json.loads(line)
      for name in self.fields.found:
        del row[name]
    except (ValueError, KeyError, TypeError, RecursionError):
      return None
    return row

  def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds a line for each row as it comes.

    A killed process loses none of them; a machine that fails, the latest.
    """
    synced = time.monotonic()
    for row in rows:
      self.done += 1
      if self._file is None:
        continue
      with atomic_write.naming(self.partial):
        self._file.write(_line(row))
        self._file.flush()
      if time.monotonic() - synced > 1.0:
        os.fsync(self._file.fileno())
        synced = time.monotonic()

  def finish(self) -> None:
    """Gives the complete file its name.

    Raises:
      Failure: there are other lines than were to be.
    """
    if self.done != self.total:
      raise Failure(
        f"{self.partial} has {self.done} lines for {self.total} sources: the "
        "input changed while it was read; run the command again"
      )
    if self._file is None:
      return
    os.fsync(self._file.fileno())
    os.replace(self.partial, self.path)
    atomic_write.sync(self.path.parent)
    self.close()


def _line(row: Mapping[str, Any]) -> bytes:
  try:
    return (
      json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()
  except UnicodeEncodeError:
    # Half of a surrogate pair, which a field that is passed on may have.
    return (json.dumps(row, allow_nan=False) + "\n").encode()
