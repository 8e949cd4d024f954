"""The output of a prediction: lines that a crash cannot lose or double."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from train import processes, validate, workdir


class Output:
  """`path`, written as `path`.partial and renamed when it is complete.

  `path`.made_by says which weights, settings and inputs made it. All processes
  call every method; the first one writes.
  """

  def __init__(self, path: Path, made_by: Mapping[str, Any]):
    self.path = path
    self.partial = path.with_name(f"{path.name}.partial")
    self.label = path.with_name(f"{path.name}.made_by")
    self.made_by = json.loads(json.dumps(made_by))
    self.chief = jax.process_index() == 0

  def open(self, *, overwrite: bool, total: int) -> int:
    """How many lines are there already, `total` when it is complete.

    Raises:
      Refusal: something else made this output, and `overwrite` is False.
    """
    return processes.on_chief(
      f"opening {self.path}", lambda: self._open(overwrite, total)
    )

  def _open(self, overwrite: bool, total: int) -> int:
    if self.path.exists() or self.partial.exists():
      if not (other := self._difference()):
        return total if self.path.exists() else self._keep()
      if not overwrite:
        raise validate.Refusal(
          f"--output={self.path} was made by something else ({other}): pass "
          "--overwrite, or choose another --output"
        )
    self.path.parent.mkdir(parents=True, exist_ok=True)
    for old in (self.path, self.partial, self.label):
      old.unlink(missing_ok=True)
    workdir.write_json(self.label, self.made_by)
    self.partial.touch()
    return 0

  def _difference(self) -> str:
    """What differs from what made the file that is there."""
    if not self.label.exists():
      return f"there is no {self.label.name} beside it"
    old = json.loads(self.label.read_text(encoding="utf-8"))
    changes = workdir.difference(old, self.made_by)
    return ", ".join(f"{k}: {a!r} -> {b!r}" for k, (a, b) in changes.items())

  def _keep(self) -> int:
    """Cuts the partial file to whole lines."""
    self.partial.touch()
    done = end = 0
    with open(self.partial, "rb+") as file:
      for line in file:
        if line.endswith(b"\n"):
          done, end = done + 1, end + len(line)
      file.truncate(end)
    return done

  def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds a line for each row as it comes.

    A killed process loses none of them; a machine that fails those of the last
    second.
    """
    if not self.chief:
      for _ in rows:
        pass
      return
    with open(self.partial, "a", encoding="utf-8") as file:
      synced = time.monotonic()
      for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        if time.monotonic() - synced > 1.0:
          os.fsync(file.fileno())
          synced = time.monotonic()
      os.fsync(file.fileno())

  def finish(self) -> None:
    """Gives the complete file its name."""
    if self.chief and self.partial.exists():
      os.replace(self.partial, self.path)


def digest(parts: Iterable[bytes]) -> str:
  """A hex digest of some bytes."""
  total = hashlib.sha256()
  for part in parts:
    total.update(len(part).to_bytes(8, "big") + part)
  return total.hexdigest()[:32]
