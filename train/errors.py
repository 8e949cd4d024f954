"""Errors that end a command with one line: the message is for its user."""

import contextlib
from collections.abc import Iterator


class Failure(Exception):
  """A run ends here; the message is all that its user needs."""


class Refusal(Failure, ValueError):
  """The user's input cannot be run; the message says what to change."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
  """Inside, what a reader of files or configs raises becomes a Refusal."""
  try:
    yield
  except Refusal:
    raise
  except (ValueError, OSError) as error:
    raise Refusal(str(error)) from error
