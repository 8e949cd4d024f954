"""Signals: SIGINT and SIGTERM end a command by one sentence, saved if it can.

Only the standard library is imported, for main.py begins with this: from its
first import on a signal is heard.
"""

import contextlib
import ctypes
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

# When this process did, as `time.time` has it.
BEGAN = time.time()
NUMBERS = (signal.SIGINT, signal.SIGTERM)
# What waits for stdout, of which nobody may read the other end.
_FLUSH_SECONDS = 1.0


@dataclasses.dataclass
class _Process:
  """What this process does about signals, of which it has one handler each.

  Attributes:
    watched: a thread ends it at a signal.
    kept: what the sentence says of the work so far.
    saving: the thread leaves the first signal to the loop, which saves.
    received: the signals, as the main thread has seen them.
    agree: tells the other processes of the run, if there are any.
    leave: tells them that this one ends, and with which status.
    log: a file's descriptor, to which sentences go as they go to stderr.
  """

  watched: bool = False
  kept: str = "nothing was begun"
  saving: bool = False
  received: list[int] = dataclasses.field(default_factory=list)
  agree: Callable[[int], None] | None = None
  leave: Callable[[int], None] | None = None
  log: int | None = None


_process = _Process()


def watch() -> None:
  """From here on a first SIGINT or SIGTERM ends the process, by a sentence.

  A thread does it. An exception, which a handler could raise, would be lost in
  callbacks of XLA; and no handler runs while the main thread compiles.
  """
  # After such an end the tracker of multiprocessing removes the semaphores
  # that are left, as it should; it need not warn of them.
  sys.warnoptions.append("ignore:resource_tracker:UserWarning")
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  _process.watched = True
  _install()
  os.register_at_fork(after_in_child=_forget)
  threading.Thread(target=_listen, args=(reading,), daemon=True).start()


def keep(what: str) -> None:
  """The sentence says this of the work, from here on."""
  _process.kept = what


def tell_others(leave: Callable[[int], None]) -> None:
  """From here on `end` first calls this with its status."""
  _process.leave = leave


def say_also_to(descriptor: int) -> None:
  """From here on sentences are written there too."""
  _process.log = descriptor


def among_others() -> bool:
  """Whether this process is one of several that end together."""
  return _process.leave is not None


def renew() -> None:
  """Hears signals again after JAX has joined processes, and has taken SIGTERM.

  JAX's own handler, by which processes agree on a step, is called by ours.
  """
  if _process.watched:
    _install()


@dataclasses.dataclass(frozen=True)
class Saving:
  """Signals while a run saves its state before it ends.

  Attributes:
    received: the signals so far.
  """

  received: list[int]

  def begin(self) -> None:
    """From here on there is a state to save: the first signal ends nothing."""
    _process.saving = _process.watched

  @property
  def status(self) -> int:
    """The exit status; SIGTERM's where another process has got the signal."""
    return 128 + (self.received or [signal.SIGTERM])[0]


@contextlib.contextmanager
def saving() -> Iterator[Saving]:
  """Inside, after `begin`, a first signal is only received; a second one ends.

  In a process that is not watched, where this is called as a function, the
  handlers are there inside alone, and the second signal gets the old ones.
  """
  old = {number: signal.getsignal(number) for number in NUMBERS}
  _process.received.clear()
  if not _process.watched:
    _install(old)
  try:
    yield Saving(_process.received)
  finally:
    _process.saving = False
    if _process.watched:
      keep("what was done is saved, and the same command goes on")
    else:
      _restore(old)


def _install(old: dict[signal.Signals, Any] | None = None) -> None:
  """Ours are the handlers; that of a C library is called by them."""

  def receive(number: int, _: Any) -> None:
    _process.received.append(number)
    if _process.agree is not None:
      _process.agree(signal.SIGTERM)
    if old is not None:
      _restore(old)

  before = _c_handler(signal.SIGTERM)
  for number in NUMBERS:
    signal.signal(number, receive)
  # JAX's is the first one that is met; a library of devices may add its own.
  known = (0, 1, _c_handler(signal.SIGTERM))  # SIG_DFL, SIG_IGN, ours.
  if _process.agree is None and before not in known:
    _process.agree = ctypes.CFUNCTYPE(None, ctypes.c_int)(before)


def _restore(old: dict[signal.Signals, Any]) -> None:
  for number, handler in old.items():
    signal.signal(number, handler)


def _c_handler(number: int) -> int:
  """The address of a signal's handler, whoever has set it."""
  get = ctypes.pythonapi.PyOS_getsig
  get.restype, get.argtypes = ctypes.c_void_p, (ctypes.c_int,)
  return get(number) or 0


def _forget() -> None:
  """In a forked process: its signals are not its parent's."""
  signal.set_wakeup_fd(-1)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _listen(descriptor: int) -> None:
  heard = False
  while byte := os.read(descriptor, 1):
    number = byte[0]
    if number not in NUMBERS:
      continue
    name = signal.Signals(number).name
    if heard:
      end(128 + number, f"stopped at once by a second signal, {name}")
    elif not _process.saving:
      end(128 + number, f"stopped by {name}: {_process.kept}")
    heard = True
    _say(f"{name}: this step is finished and saved first; once more ends it")


def end(status: int, sentence: str) -> NoReturn:
  """Ends the process, wherever its threads are; files are left as by a kill.

  Each file is written under another name until it is complete.
  """
  flushing = threading.Thread(target=sys.stdout.flush, daemon=True)
  flushing.start()
  flushing.join(_FLUSH_SECONDS)
  _say(sentence)
  if _process.leave is not None:
    _process.leave(status)
  for child in _children():
    with contextlib.suppress(ProcessLookupError):
      os.kill(child, signal.SIGKILL)
  os._exit(status)


def _say(sentence: str) -> None:
  # Not by a stream, whose lock the main thread may have. A bar ends no line.
  start = "\n" if os.isatty(2) else ""
  with contextlib.suppress(OSError):
    os.write(2, f"{start}{sentence}\n".encode())
  if _process.log is not None:
    with contextlib.suppress(OSError):
      os.write(_process.log, f"{sentence}\n".encode())


def _children() -> set[int]:
  """Processes of multiprocessing, also those that it is just starting."""
  children = {child.pid or 0 for child in multiprocessing.active_children()}
  own = b""
  with contextlib.suppress(OSError):
    own = Path("/proc/self/cmdline").read_bytes()
  for path in Path("/proc/self/task").glob("*/children"):
    for child in path.read_text().split():
      with contextlib.suppress(OSError):
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        # Before its own command line it has ours.
        if b"spawn_main" in command or command == own:
          children.add(int(child))
  return children - {0}
