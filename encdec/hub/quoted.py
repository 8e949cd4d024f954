"""Words out of files, in messages: a few of them, on one line."""

import json
from collections.abc import Iterable
from typing import Any

_MOST = 100


def quoted(value: Any) -> str:
  """What a file says, as `repr` writes it, cut where it grows long.

  Containers are not written out: what they hold may have no end.
  """
  if isinstance(value, str | bytes):
    return _cut(repr(value[:_MOST]), len(value) > _MOST)
  if isinstance(value, int) and value.bit_length() > 128:
    return f"a number of {value.bit_length()} bits"
  if isinstance(value, int | float | None):
    return repr(value)
  if isinstance(value, list | tuple) and len(value) <= 8:
    if all(isinstance(one, int) for one in value):
      return f"[{', '.join(map(quoted, value))}]"
  return f"a {type(value).__name__}"


def few(names: Iterable[Any]) -> str:
  """The first names, and how many there are; a file's are `plain` before."""
  names = list(names)
  shown = ", ".join(str(name) for name in names[:5])
  return shown if len(names) <= 5 else f"{shown}, ... ({len(names)} in all)"


def plain(text: Any) -> str:
  """The text itself; as `quoted` where it is long or no line of print."""
  text = str(text)
  return text if text.isprintable() and len(text) <= _MOST else quoted(text)


def fault(error: BaseException) -> str:
  """What an error says of a file, without the bytes that it holds."""
  if isinstance(error, UnicodeError):
    reason = getattr(error, "reason", "it cannot be decoded")
    return f"no UTF-8 at byte {getattr(error, 'start', 0)}: {reason}"
  if isinstance(error, json.JSONDecodeError):
    return f"no JSON at character {error.pos}: {error.msg}"
  if isinstance(error, KeyError):
    return f"it lacks {quoted(error.args[0] if error.args else '')}"
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return _cut(lines[0][:_MOST], len(lines[0]) > _MOST)


def _cut(text: str, longer: bool) -> str:
  return f"{text}..." if longer else text
