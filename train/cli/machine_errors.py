"""Failures of the machine: what failed, where, and what to do, in one line."""

import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

from train.errors import Failure, Refusal

_RESUMES = "; the same command then goes on from where it was"
# Errors of a file system, by what to do about them.
_REMEDIES = {
  (errno.ENOSPC, errno.EDQUOT): f"make room there{_RESUMES}",
  (errno.EFBIG,): f"raise the limit of a file's size (ulimit -f){_RESUMES}",
  (errno.EROFS,): (
    "choose another --workdir, --output or data.store, which can be written"
  ),
  (errno.EACCES, errno.EPERM): "change its permissions, or name another",
  (errno.ENAMETOOLONG,): "choose a shorter path",
  (errno.EMFILE, errno.ENFILE): (
    f"raise the limit of open files (ulimit -n){_RESUMES}"
  ),
  (errno.ENOMEM,): f"end what else takes memory there{_RESUMES}",
  (errno.ENOLCK,): "choose a folder of a file system that has locks",
  (errno.EBUSY,): f"end what else uses it{_RESUMES}",
  (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN): (
    f"fix the disk, or mount the folder anew{_RESUMES}"
  ),
}
# As libraries write them that have no OSError.
_TEXTS = {
  "No space left on device": errno.ENOSPC,
  "Disk quota exceeded": errno.EDQUOT,
  "File too large": errno.EFBIG,
  "Read-only file system": errno.EROFS,
  "Input/output error": errno.EIO,
}
# Characters of an error's own text that a message repeats.
_LONGEST = 300
_PATH = re.compile(r'"(/[^"]+)"')


def explain(error: BaseException, workdir: str) -> str | None:
  """What the file system has refused, in one line; None: it is something else.

  Args:
    workdir: named where the error itself names no file.
  """
  nameless = told = None
  for cause in _chain(error):
    if full := _full_memory(cause):
      return full
    if isinstance(cause, OSError) and cause.errno is None:
      # A message of ours about the error that caused it.
      if cause.__cause__ and explain(cause.__cause__, workdir):
        return str(cause)
    elif isinstance(cause, OSError) and (remedy := _remedy(cause)):
      what = f"{cause.strerror}: {remedy}"
      # What was raised on the way out may not say where it was.
      if cause.filename is not None:
        return f"{cause.filename}: {what}"
      nameless = nameless or f"--workdir={workdir}: {what}"
    elif not isinstance(cause, Failure | OSError):
      texts = [what for what in _TEXTS if what in str(cause)]
      if texts:
        path = _PATH.search(str(cause))
        where = path[1] if path else f"--workdir={workdir}"
        remedy = _remedy(OSError(_TEXTS[texts[0]], texts[0]))
        # What it was raised from may name the file.
        told = told or f"{where}: {texts[0]}: {remedy}"
  return nameless or told


def _full_memory(error: BaseException) -> str | None:
  """What to do where a device's memory, or the host's, is full; None: it isn't.

  Compiling and computing raise the same error, on every platform.
  """
  text = str(error)
  first = (text.splitlines() or [""])[0]
  first = first if len(first) <= _LONGEST else f"{first[:_LONGEST]}..."
  if isinstance(error, MemoryError):
    return (
      f"the host's memory is full ({first or 'MemoryError'}): lower "
      "train.batch_size or eval.batch_size, or end what else takes memory"
    )
  if not isinstance(error, jax.errors.JaxRuntimeError) or any(
    what in text for what in _TEXTS
  ):
    return None
  if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
    return (
      f"the device's memory is full ({first}): lower train.batch_size or "
      "eval.batch_size, raise train.accumulate_steps, or set "
      "model.remat='full'"
    )
  return None


def check_batch(key: str, batch: Mapping[str, jax.ShapeDtypeStruct]) -> None:
  """A batch that this host could never hold would get the process killed.

  Args:
    key: what says how many rows there are.
    batch: of all processes, which share its rows.

  Raises:
    Refusal: it cannot.
  """
  rows = batch["encoder_tokens"].shape[0]
  sizes = [array.size * array.dtype.itemsize for array in batch.values()]
  needed = sum(sizes) // jax.process_count()
  if needed > (memory := _memory()):
    raise Refusal(
      f"{key} = {rows}: the arrays of a batch take {needed / 1e9:.1f} GB, and "
      f"this host has {memory / 1e9:.1f} GB of memory: lower it, or "
      "data.max_source_length and data.max_target_length"
    )


def _memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
  """Bytes of memory that this host has, or that its container may have."""
  memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  try:
    return min(memory, int(limit.read_text()))
  except (OSError, ValueError):  # None is set, or it stands elsewhere.
    return memory


def report(unraisable: "sys.UnraisableHookArgs") -> None:
  """In place of sys.unraisablehook: without what a failed save leaves behind.

  Its other writes end later, and call an event loop that is gone.
  """
  error = unraisable.exc_value
  if (
    not isinstance(error, RuntimeError) or str(error) != "Event loop is closed"
  ):
    sys.__unraisablehook__(unraisable)


def _chain(error: BaseException) -> Iterator[BaseException]:
  """An error, and those that it was raised from."""
  seen: set[int] = set()
  left = [error]
  while left:
    cause = left.pop(0)
    if id(cause) in seen:
      continue
    seen.add(id(cause))
    yield cause
    if isinstance(cause, BaseExceptionGroup):
      left += cause.exceptions
    if cause.__cause__ is not None:
      left.append(cause.__cause__)
    elif cause.__suppress_context__:
      pass  # What is raised "from None" says it all.
    elif cause.__context__ is not None and _is_closing(cause):
      left.append(cause.__context__)


def _is_closing(error: BaseException) -> bool:
  """Whether an error may come of closing what another one has broken."""
  return isinstance(error, OSError | ValueError | RuntimeError)


def _remedy(error: OSError) -> str | None:
  for numbers, remedy in _REMEDIES.items():
    if error.errno in numbers:
      return remedy
  return None
