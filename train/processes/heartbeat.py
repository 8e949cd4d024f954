"""Heartbeats: a process that is lost is named, and the others end.

Every process keeps a connection to process 0. One that closes without a word
tells at once of a process that died; one on which nothing comes for
SILENCE_SECONDS, of one that is stopped or of a host that is gone. A thread
beats, and says which step was begun: of a process whose computation alone hangs
there is a warning. JAX notices losses by itself too, later, and names no host.
"""

import json
import math
import os
import re
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import jax
from absl import logging

from train.cli import exit_status, signals
from train.processes import agreement, links
from train.processes.laggards import Laggards
from train.processes.links import Link

# Of JAX's own detection, which comes second.
JAX_SECONDS = 45
SILENCE_SECONDS = 40.0
BEAT_SECONDS = 5.0
# For others to end by what they have seen themselves, before they are ended.
GRACE_SECONDS = 3.0
# For process 0 to hear that the others are gone: JAX ends those that it leaves.
LEAVING_SECONDS = 10.0
# In which a connection tells of a death that a computation has met.
SETTLE_SECONDS = 2.0
# What a computation says that has met the loss of a host.
_OF_OTHERS = re.compile(
  r"\b(UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|INTERNAL|Gloo|NCCL)\b"
)
# Of what kind, about which process, and its status or its step.
_FRAME = struct.Struct(">cHI")
_BEAT, _DONE, _ENDED, _LOST, _STOP = b"b", b"d", b"e", b"l", b"s"
# Bytes that name where process 0 listens, and a host.
_ADDRESSES, _HOST = 1024, 64


class Heartbeats:
  """Of this process; `end` ends it with a status and a sentence.

  Args:
    hosts: of every process, for sentences.
    connected: those that there are already.
    listener: of process 0, to which the others connect, with its token.
  """

  def __init__(
    self,
    process: int,
    hosts: Sequence[str],
    end: Callable[[int, str], None],
    *,
    connected: Iterable[Link] = (),
    listener: socket.socket | None = None,
    token: bytes = b"",
    silence: float = SILENCE_SECONDS,
  ):
    self.process = process
    self.hosts = hosts
    self.step = 0
    self.laggards = Laggards(self._name)
    self._end = end
    self._links = list(connected)
    self._listener = listener
    self._token = token
    self._silence = silence
    self._lock = threading.Lock()
    self._stopped = threading.Event()
    self._losing = threading.Event()
    self.stop_told = threading.Event()
    self._selector = selectors.DefaultSelector()
    for link in self._links:
      self._selector.register(link.connection, selectors.EVENT_READ, link)
    if listener is not None:
      self._selector.register(listener, selectors.EVENT_READ)
    # A forked worker would keep connections open that tell of a death.
    os.register_at_fork(after_in_child=self._forget)
    threading.Thread(target=self._watch, daemon=True).start()

  def done(self, wait: bool = False) -> None:
    """This process ends as it should: nobody misses it, and it misses none.

    Args:
      wait: until the others are gone: JAX, which makes them meet at their
        end, is not asked to.
    """
    self._stopped.set()
    self._tell(_DONE, self.process)
    if wait:
      self._wait_until_alone()

  def leave(self, status: int) -> None:
    """Tells the others that this process ends, just before it does."""
    if self._stopped.is_set():
      return
    self._stopped.set()
    self._tell(_ENDED, self.process, status)
    self._wait_until_alone()

  def tell_of_stop(self) -> None:
    """Tells all processes that one was asked to stop, if none has yet."""
    if not self.stop_told.is_set():
      self.stop_told.set()
      self._tell(_STOP, self.process)

  def settle(self, seconds: float) -> None:
    """Where an error may be another process's, waits for the sentence of it."""
    self._losing.wait(seconds)
    if self._losing.is_set():
      time.sleep(GRACE_SECONDS + LEAVING_SECONDS)

  def _watch(self) -> None:
    beaten = -math.inf
    while not self._stopped.is_set():
      ready = self._selector.select(timeout=0.5)
      for key, _ in ready:
        if key.data is None:
          self._accept()
        elif not self._stopped.is_set():
          self._read(key.data)
      now = time.monotonic()
      if now - beaten >= BEAT_SECONDS:
        self._tell(_BEAT, self.process, self.step)
        self.laggards.note(self.process, self.step)
        self.laggards.warn(now)
        beaten = now
      for link in self._links:
        if not link.left and now - link.heard > self._silence:
          silence = f"nothing was heard of it for {self._silence:.0f} s"
          self._lose(link.process, silence)

  def _accept(self) -> None:
    """Adds a process that has connected, if it is one of this run."""
    assert self._listener is not None, "it is ready"
    try:
      connection, _ = self._listener.accept()
    except OSError:
      return  # Whoever it was has gone again.
    link = links.greeted(connection, self._token)
    if link is None:
      return
    self._selector.register(connection, selectors.EVENT_READ, link)
    with self._lock:
      self._links.append(link)

  def _read(self, link: Link) -> None:
    """Takes what came, or that nothing will come any more."""
    try:
      received = link.connection.recv(4096)
      problem = "" if received else "its connection closed"
    except BlockingIOError:
      return
    except OSError as error:
      received, problem = b"", f"its connection broke: {error.strerror}"
    link.heard = time.monotonic()
    link.received += received
    while len(link.received) >= _FRAME.size:
      frame = link.received[: _FRAME.size]
      link.received = link.received[_FRAME.size :]
      self._take(link, *_FRAME.unpack(frame))
    if not problem:
      return
    self._selector.unregister(link.connection)
    with self._lock:
      self._links.remove(link)
    link.connection.close()
    if not link.left:
      self._lose(link.process, problem)

  def _take(self, link: Link, kind: bytes, process: int, status: int) -> None:
    if kind == _BEAT:
      self.laggards.note(process, status)
    elif kind == _DONE:
      link.left = True
    elif kind == _ENDED:
      link.left = True
      self._follow(process, status)
    elif kind == _LOST:
      self._lose(process, "process 0 says so")
    elif kind == _STOP:
      self.tell_of_stop()

  def _forget(self) -> None:
    """In a forked process: it is none of the run's."""
    for link in self._links:
      link.connection.close()
    if self._listener is not None:
      self._listener.close()

  def _follow(self, process: int, status: int) -> None:
    """Ends with another process, but later: it may have reasons itself."""
    self._losing.set()
    # In process 0: nobody else hears it from the process itself.
    self._tell(_ENDED, process, status)
    time.sleep(GRACE_SECONDS)
    how = exit_status.meaning(status)
    self._finish(status, f"{self._name(process)} {how}: this one ends with it")

  def _lose(self, process: int, problem: str) -> None:
    self._losing.set()
    self._tell(_LOST, process)
    self._finish(
      exit_status.AGAIN,
      f"{self._name(process)} was lost ({problem}): what was saved is kept, "
      "and the same command goes on",
    )

  def _finish(self, status: int, sentence: str) -> None:
    self._stopped.set()
    self._wait_until_alone()
    self._end(status, sentence)

  def _name(self, process: int) -> str:
    return f"process {process} on {self.hosts[process]}"

  def _tell(self, kind: bytes, process: int, status: int = 0) -> None:
    """Sends to every other process, or to process 0."""
    frame = _FRAME.pack(kind, process, status)
    with self._lock:
      for link in list(self._links):
        if link.process == process:
          continue
        try:
          link.connection.sendall(frame)
        except OSError:
          pass  # Reading says what is wrong with it.

  def _wait_until_alone(self) -> None:
    """In process 0: until the others have closed their connections."""
    if self.process != 0:
      return
    deadline = time.monotonic() + LEAVING_SECONDS
    for link in list(self._links):
      while time.monotonic() < deadline:
        try:
          if not link.connection.recv(4096):
            break
        except BlockingIOError:
          time.sleep(0.02)
        except OSError:
          break


# Of this process; None while it is alone.
_own: Heartbeats | None = None


def begin(coordinator: str = "") -> None:
  """Begins to watch the other processes, if there are any.

  All processes of a run call it, when JAX has joined them.

  Args:
    coordinator: host:port that process 0 was given for JAX, if it was.
  """
  global _own
  if jax.process_count() > 1:
    _own = _begin(coordinator)
    signals.tell_others(_own.leave)


def done(wait: bool = False) -> None:
  """This process ends as it should; `wait`: when the others are gone, too."""
  if _own is not None:
    _own.done(wait)


def at_step(step: int) -> None:
  """This process has begun a step."""
  if _own is not None:
    _own.step = step


def tell_of_stop() -> None:
  """Tells all processes that this one was asked to stop."""
  if _own is not None:
    _own.tell_of_stop()


def stop_was_told() -> bool:
  """Whether another process was asked to stop."""
  return _own is not None and _own.stop_told.is_set()


def settle(error: BaseException) -> int:
  """After an error that may be another's: waits for the sentence about it.

  Returns:
    The exit status, where no process was lost: AGAIN after an error as
    computations of several processes have it when a machine fails.
  """
  if _own is None:
    return exit_status.FAILED
  of_others = _OF_OTHERS.search(str(error)) is not None
  # A host may be gone whose connection has not closed.
  _own.settle(SILENCE_SECONDS + BEAT_SECONDS if of_others else SETTLE_SECONDS)
  return exit_status.AGAIN if of_others else exit_status.FAILED


def _begin(coordinator: str) -> Heartbeats:
  process = jax.process_index()
  hosts = agreement.texts_of_all(socket.gethostname(), _HOST)
  listener, token, told = None, os.urandom(links.TOKEN), ""
  if process == 0:
    host = coordinator.rpartition(":")[0]
    listener = links.listen(host)
    port = listener.getsockname()[1]
    told = json.dumps([token.hex(), port, links.addresses(host)])
  told = agreement.text_of_chief(told, _ADDRESSES)
  connected = []
  if process:
    token, port, addresses = json.loads(told)
    token = bytes.fromhex(token)
    if link := links.connect(addresses, port, token, process):
      connected.append(link)
    else:
      logging.warning(
        "process 0 on %s cannot be reached at port %d of %s: a process that is "
        "lost is noticed by JAX alone, within %d s",
        *(hosts[0], port, " or ".join(addresses), JAX_SECONDS),
      )
  return Heartbeats(
    process,
    hosts,
    signals.end,
    connected=connected,
    listener=listener,
    token=token,
  )
