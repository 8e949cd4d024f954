"""A signal while a launcher is being imported ends it, by one sentence."""

import os
import signal


def watch() -> None:
  """From here on, until there are other handlers. Nothing was begun so far."""
  signal.signal(signal.SIGINT, _stop)
  signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _: object) -> None:
  name = signal.Signals(number).name
  try:
    os.write(2, f"stopped by {name}: nothing was begun\n".encode())
  finally:
    os._exit(128 + number)
