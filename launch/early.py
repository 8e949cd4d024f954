"""A signal while a launcher is being imported ends it, by one sentence."""

import os
import signal


def watch(begun: str = "nothing was begun") -> None:
  """From here on, until there are other handlers, the sentence says `begun`."""

  def stop(number: int, _: object) -> None:
    name = signal.Signals(number).name
    try:
      os.write(2, f"stopped by {name}: {begun}\n".encode())
    finally:
      os._exit(128 + number)

  signal.signal(signal.SIGINT, stop)
  signal.signal(signal.SIGTERM, stop)
