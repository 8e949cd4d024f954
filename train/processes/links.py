"""Connections of a run's processes to process 0, which all keep."""

import dataclasses
import hmac
import socket
import struct
import time
from collections.abc import Sequence

# Bytes that only a process of the run knows.
TOKEN = 16
_HELLO = struct.Struct(f">{TOKEN}sH")
_CONNECT_SECONDS = 5.0
# A process says at once who it is; a stranger must not hold up the heartbeats.
_HELLO_SECONDS = 1.0


@dataclasses.dataclass(eq=False)
class Link:
  """The connection to a process.

  Attributes:
    heard: when anything came last, on the clock of `time.monotonic`.
    left: it has said that it ends, and need not be missed.
  """

  process: int
  connection: socket.socket
  heard: float
  left: bool = False
  received: bytes = b""


def listen(host: str) -> socket.socket:
  """Listens at a free port, on this machine alone where JAX does so."""
  if host in ("localhost", "127.0.0.1", "[::1]"):
    listener = socket.create_server((host.strip("[]"), 0), backlog=1024)
  elif socket.has_dualstack_ipv6():
    listener = socket.create_server(
      ("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
    )
  else:
    listener = socket.create_server(("", 0), backlog=1024)
  listener.setblocking(False)
  return listener


def addresses(host: str) -> list[str]:
  """Where this machine may be reached, the likeliest first."""
  found = [host.strip("[]")] if host else []
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
      # Sends nothing: it only asks which interface would.
      probe.connect(("192.0.2.1", 9))
      found.append(probe.getsockname()[0])
    except OSError:
      pass  # Without a default route.
  return list(dict.fromkeys([*found, socket.gethostname()]))


def connect(
  addresses: Sequence[str], port: int, token: bytes, process: int
) -> Link | None:
  """The link of `process` to process 0, by an address that leads there."""
  hello = _HELLO.pack(token, process)
  for address in addresses:
    try:
      connection = socket.create_connection((address, port), _CONNECT_SECONDS)
      connection.sendall(hello)
    except OSError:
      continue
    connection.setblocking(False)
    return Link(0, connection, time.monotonic())
  return None


def greeted(connection: socket.socket, token: bytes) -> Link | None:
  """The link of a process that shows the token of this run; None: closed."""
  connection.settimeout(_HELLO_SECONDS)
  hello = b""
  try:
    while len(hello) < _HELLO.size:
      if not (received := connection.recv(_HELLO.size - len(hello))):
        break
      hello += received
  except OSError:
    pass  # Too little has come, or nothing.
  if len(hello) == _HELLO.size:
    shown, process = _HELLO.unpack(hello)
    if hmac.compare_digest(shown, token):
      connection.setblocking(False)
      return Link(process, connection, time.monotonic())
  connection.close()
  return None
