"""What the processes of a run do once, and what they must have alike."""

import hashlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from train.errors import Failure, Refusal

_SEEN_SECONDS = 10.0


def on_chief(what: str, action: Callable[[], int | None]) -> int:
  """Does `action` in the first process; gives its number in all of them.

  All processes call it, and none goes on before it is done.

  Args:
    what: for the others' message when it fails.
    action: gives a number of at least 0, or None for 0.

  Raises:
    Failure: in the others, when it failed in the first process.
  """
  number = -1
  try:
    if jax.process_index() == 0:
      number = action() or 0
  finally:
    # Also after an error: the others must not wait for it in vain.
    if jax.process_count() > 1:
      number = int(multihost_utils.broadcast_one_to_all(np.int32(number)))
  if number < 0:
    raise Failure(f"{what} failed in process 0, which says why")
  return number


def texts_of_all(text: str, size: int) -> list[str]:
  """The text of each process, of which all have at most `size` bytes."""
  every = multihost_utils.process_allgather(_bytes(text, size))
  return [_text(one) for one in np.asarray(every).reshape(-1, size)]


def text_of_chief(text: str, size: int) -> str:
  """The first process's text, of at most `size` bytes, in all processes."""
  return _text(multihost_utils.broadcast_one_to_all(_bytes(text, size)))


def check_same(what: str, value: str) -> None:
  """All processes call it, with what must be one in all of them.

  Raises:
    Refusal: in all of them, where it is not.
  """
  if other := _other(value):
    raise Refusal(
      f"{what} of process {other} is not that of process 0: give all "
      "processes the same files and flags"
    )


def check_versions() -> None:
  """All processes call it.

  Raises:
    Refusal: in all of them, where some have other versions than the first.
  """
  if jax.process_count() == 1:
    return
  names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  packages = [f"{name} {importlib.metadata.version(name)}" for name in names]
  mine = ", ".join([f"Python {platform.python_version()}", *packages])
  if other := _other(mine):
    raise Refusal(
      f"process {other} has other versions than process 0; this process has "
      f"{mine}: install the same on every host, by constraints.txt"
    )


def check_shared(flag: str, folder: Path) -> None:
  """All processes call it, with a folder that the first one can write.

  Raises:
    Refusal: in all of them, where one does not see what the first has written.
  """
  if jax.process_count() == 1:
    return
  sent = np.frombuffer(os.urandom(8), np.uint8)
  mark = bytes(np.asarray(multihost_utils.broadcast_one_to_all(sent))).hex()
  path = folder / f"seen-by-every-host.{mark}"
  on_chief(f"writing into {flag}={folder}", path.touch)
  seen = _appears(path)
  every = np.asarray(multihost_utils.process_allgather(np.asarray(seen)))
  on_chief(f"removing {path}", lambda: path.unlink(missing_ok=True))
  if not every.all():
    raise Refusal(
      f"{flag}={folder} of process {int(every.argmin())} is not the folder of "
      "process 0: name one that all hosts share"
    )


def _appears(path: Path) -> bool:
  """Whether it is there; other hosts may see it a little later."""
  deadline = time.monotonic() + _SEEN_SECONDS
  while not path.exists():
    if time.monotonic() > deadline:
      return False
    # A listing makes what an NFS client remembers of the folder anew.
    list(path.parent.glob("seen-by-every-host.*"))
    time.sleep(0.2)
  return True


def _other(value: str) -> int:
  """The first process with another value than process 0's; 0: there is none."""
  digest = hashlib.sha256(value.encode()).digest()
  mine = np.frombuffer(digest, np.uint8)
  every = np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, 32)
  others = np.flatnonzero((every != every[0]).any(axis=1)).tolist()
  return others[0] if others else 0


def _bytes(text: str, size: int) -> np.ndarray:
  """The text in as many bytes, as an array that processes can exchange."""
  encoded = text.encode()[:size].ljust(size)
  return np.frombuffer(encoded, np.uint8)


def _text(array: np.ndarray) -> str:
  return np.asarray(array, np.uint8).tobytes().decode(errors="replace").rstrip()
