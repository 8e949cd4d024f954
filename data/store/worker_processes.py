"""Processes that do numbered pieces of a work, and end with their parent."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from signal import SIGINT, SIGTERM

Work = Callable[[int], None]


def cores() -> int:
  """The cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


@contextlib.contextmanager
def sheltered() -> Iterator[None]:
  """Processes and threads that begin inside hear no SIGINT and no SIGTERM.

  A terminal, or a launcher, signals all processes of a command at once: the
  first one decides what is saved, and the others end with it.
  """
  # Inherited, so that it also holds while a process imports.
  old = signal.pthread_sigmask(signal.SIG_BLOCK, (SIGINT, SIGTERM))
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, old)


def end_with_parent(*unused: int) -> None:
  """In a process of multiprocessing: it ends at once when its parent has."""
  parent = multiprocessing.parent_process()
  assert parent is not None, "the first process has no parent to end with"

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


def in_order(work: Work, pieces: int, processes: int) -> Iterator[int]:
  """Does `work(0)` to `work(pieces - 1)`; gives each number when it is done.

  With one process this one does it. Raises what the first failing piece did.
  """
  if processes == 1:
    for piece in range(pieces):
      work(piece)
      yield piece
    return
  # Sent as a file: the parent of a process that is killed while its arguments
  # fill the pipe would wait for ever (CPython 3.11).
  with tempfile.NamedTemporaryFile() as file:
    pickle.dump(work, file)
    file.flush()
    yield from _in_processes(file.name, pieces, processes)


def _in_processes(path: str, pieces: int, processes: int) -> Iterator[int]:
  # Not forked: threads of JAX and of the tokenizers would be torn.
  context = multiprocessing.get_context("spawn")
  # When nobody holds its other end any more, a process ends at once.
  life, ours = context.Pipe(duplex=False)
  executor = futures.ProcessPoolExecutor(
    processes, context, initializer=_begin, initargs=(path, life)
  )
  try:
    with sheltered():
      done = [executor.submit(_do, piece) for piece in range(pieces)]
    for piece, future in enumerate(done):
      future.result()
      yield piece
  except BrokenProcessPool as error:
    ours.close()
    raise RuntimeError(
      "a process that prepares data was ended from outside, for want of "
      "memory perhaps: lower data.prepare_workers; run again, and it goes on"
    ) from error
  except BaseException:
    ours.close()
    raise
  finally:
    executor.shutdown(cancel_futures=True)
    ours.close()
    life.close()


# Of a process of the pool alone: the work is sent to it once.
_work: list[Work] = []


def _begin(path: str, life: Connection) -> None:
  # A process a core: none needs threads of the tokenizers beside it.
  os.environ["TOKENIZERS_PARALLELISM"] = "false"
  threading.Thread(target=_end_with, args=(life,), daemon=True).start()
  with open(path, "rb") as file:
    _work.append(pickle.load(file))


def _end_with(life: Connection) -> None:
  try:
    life.recv()
  except EOFError:
    os._exit(1)


def _do(piece: int) -> None:
  _work[0](piece)
