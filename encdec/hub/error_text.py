"""Quotes what a file holds in error messages: shortened, on one line."""

import json
from collections.abc import Iterable
from typing import Any

_WORD, _SENTENCE = 100, 200


def quoted(value: Any) -> str:
  """What a file says, as `repr` writes it, cut where it grows long.

  Containers are not written out: what they hold may have no end.
  """
  if isinstance(value, str | bytes):
    end = "..." if len(value) > _WORD else ""
    return repr(value[:_WORD]) + end
  if isinstance(value, int) and value.bit_length() > 128:
    return f"a number of {value.bit_length()} bits"
  if isinstance(value, int | float | None):
    return repr(value)
  if isinstance(value, list | tuple) and len(value) <= 8:
    if all(isinstance(one, int) for one in value):
      return f"[{', '.join(map(quoted, value))}]"
  return f"a {type(value).__name__}"


def plain(text: Any) -> str:
  """The text itself; as `quoted` where it is long or not printable."""
  text = str(text)
  return text if text.isprintable() and len(text) <= _WORD else quoted(text)


def few(names: Iterable[Any]) -> str:
  """The first five names, and how many; a file's names need `plain` before."""
  names = list(names)
  shown = ", ".join(str(name) for name in names[:5])
  return shown if len(names) <= 5 else f"{shown}, ... ({len(names)} in all)"


def clipped(text: str) -> str:
  """A sentence that quotes a file, shortened in the middle, on one line."""
  if len(text) > _SENTENCE:
    half = _SENTENCE // 2
    text = f"{text[:half]} ... {text[-half:]}"
  return " ".join(text.split())


def fault(error: BaseException, start: int = 0) -> str:
  """What an error says of a file, without the bytes that it holds.

  Args:
    start: the byte of the file at which the text begins that was read.
  """
  if isinstance(error, UnicodeDecodeError):
    return f"no UTF-8 at byte {start + error.start}: {error.reason}"
  if isinstance(error, json.JSONDecodeError):
    before = error.doc[: error.pos].encode("utf-8", "surrogatepass")
    return f"no JSON at byte {start + len(before)}: {error.msg}"
  if isinstance(error, KeyError):
    return f"it lacks {quoted(error.args[0] if error.args else '')}"
  return clipped(str(error)) or type(error).__name__
