"""The lock on a run's folder: one run at a time writes there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from data.io import file_lock
from train.cli import paths
from train.errors import Refusal, refusing
from train.processes import agreement
from train.workdir.recorded_config import recorded

# There while a run has the folder; it names the process and its host.
LOCK = "lock"


@contextlib.contextmanager
def held(folder: Path, *, until_begun: bool = False) -> Iterator[None]:
  """Inside, this run alone writes into `folder`; it is made where missing.

  All processes of the run call it, and the first one has the lock. Whoever
  reads a run needs none: what is read is written atomically.

  Args:
    until_begun: not where a run has begun: its tokenizers are there to stay,
      and its sets have locks of their own.

  Raises:
    Refusal: another run has the folder, or it cannot be written.
  """
  with contextlib.ExitStack() as stack:

    def take() -> None:
      with refusing():
        if not until_begun or recorded(folder) is None:
          _take(folder, stack)

    agreement.on_chief(f"taking --workdir={folder}", take)
    agreement.check_shared("--workdir", folder)
    yield


def _take(folder: Path, stack: contextlib.ExitStack) -> None:
  if not folder.exists():
    with paths.making(f"--workdir={folder}"):
      folder.mkdir(parents=True, exist_ok=True)
    stack.callback(_remove_empty, folder)
  try:
    stack.enter_context(file_lock.exclusive(folder / LOCK))
  except file_lock.LockTaken as holder:
    raise Refusal(
      f"--workdir={folder} is held by {holder}, which runs there: wait for it "
      "or end it, or choose another --workdir"
    ) from None
  except file_lock.NoLocks as error:
    logging.warning(
      "%s: nothing keeps a second run out of --workdir=%s; start none there",
      *(error, folder),
    )
    (folder / LOCK).unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
  """A run that was refused at once leaves no folder behind."""
  with contextlib.suppress(OSError):
    folder.rmdir()
