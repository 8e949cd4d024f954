"""Words out of files, in messages: a few of them, on one line."""

import json
from collections.abc import Iterable
from typing import Any

# What reading damaged JSON, or something else than was expected in it, raises.
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_WORD, _SENTENCE = 100, 200


def quoted(value: Any, most: int = _WORD) -> str:
  """What a file says, as `repr` writes it; of a text so many characters."""
  if isinstance(value, str | bytes):
    end = "..." if len(value) > most else ""
    return repr(value[:most]) + end
  return clipped(repr(value), max(most, _SENTENCE))


def plain(text: str) -> str:
  """The text itself; as `quoted` where it is long or no line of print."""
  return text if text.isprintable() and len(text) <= _WORD else quoted(text)


def few(names: Iterable[str]) -> str:
  """The first names, and how many there are."""
  names = list(names)
  shown = clipped(", ".join(names[:8]), 2 * _SENTENCE)
  return shown if len(names) <= 8 else f"{shown}, ... ({len(names)} in all)"


def clipped(text: str, most: int = _SENTENCE) -> str:
  """A sentence with a file's words in it: its ends, on one line."""
  if len(text) > most:
    half = most // 2
    text = f"{text[:half]} ... {text[-half:]}"
  return " ".join(text.split())


def fault(error: BaseException) -> str:
  """What an error says of a file, without the bytes that it holds."""
  if isinstance(error, UnicodeDecodeError):
    return f"no UTF-8 at byte {error.start}: {error.reason}"
  if isinstance(error, json.JSONDecodeError):
    before = error.doc[: error.pos].encode("utf-8", "surrogatepass")
    return f"no JSON at byte {len(before)}: {error.msg}"
  if isinstance(error, KeyError):
    return f"it lacks {quoted(error.args[0] if error.args else '')}"
  return clipped(str(error)) or type(error).__name__
