"""The file that --config names: whether it is there, and what fails in it."""

import contextlib
import difflib
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from train.errors import Refusal

_ROOT = Path(__file__).parents[2]
# Characters of an exception's own text that a message repeats.
_LONGEST = 300


@contextlib.contextmanager
def reading(value: str) -> Iterator[None]:
  """Inside, `--config=value` is read; what fails there becomes a Refusal.

  Args:
    value: a path, with or without :variant; empty: there is no such flag.

  Raises:
    Refusal: there is no such file, or it fails; the message says where.
  """
  if value:
    _check_path(value)
  try:
    yield
  except Exception as error:
    if reason := _reason(error, value):
      raise Refusal(f"--config={reason}") from error
    raise


def _check_path(value: str) -> None:
  path, _, variant = value.partition(":")
  if os.path.isfile(path):
    return
  if os.path.isdir(path):
    raise Refusal(
      f"--config={value}: {path} is a folder; name a file in it, such as "
      "configs/quickstart.py"
    )
  near = _nearest(path)
  hint = f"did you mean {near}{':' * bool(variant)}{variant}?"
  raise Refusal(
    f"--config={value}: there is no file {path} (from {os.getcwd()}); "
    f"{hint if near else 'fix the path'}"
  )


def _nearest(path: str) -> str:
  """The config file whose name is most like that of a path, or nothing."""
  files = {
    file.stem: str(file)
    for folder in ("configs", os.path.dirname(path))
    for file in Path(folder).glob("*.py")
    if not file.stem.startswith("__")
  }
  names = difflib.get_close_matches(Path(path).stem, files, n=1, cutoff=0.5)
  return files[names[0]] if names else ""


def _reason(error: Exception, value: str) -> str:
  """What went wrong in the file, and in which line; empty: nothing did."""
  path, _, variant = value.partition(":")
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, AttributeError) and cause.name == "get_config":
      return f"{value}: {path} has no get_config()"
    if isinstance(cause, TypeError) and "get_config() " in str(cause):
      fix = f"leave :{variant} out" if variant else "add it, as :name"
      kind = "no variant" if variant else "a variant"
      return f"{value}: its get_config() takes {kind}; {fix}"
    if place := _place(cause, path):
      text = _text(cause)
      # A config refuses a variant by its own name.
      if text.startswith(f"{value}: "):
        return text
      return f"{value}: {place}: {type(cause).__name__}: {text}"
    cause = cause.__cause__ or cause.__context__
  return ""


def _place(error: BaseException, path: str) -> str:
  """The last line of ours that an exception passed; empty: not this file."""
  frames = [
    (os.path.realpath(frame.filename), frame.lineno)
    for frame in traceback.extract_tb(error.__traceback__)
  ]
  if isinstance(error, SyntaxError) and error.filename:
    frames.append((os.path.realpath(error.filename), error.lineno))
  here = os.path.realpath(path)
  if here not in [file for file, _ in frames]:
    return ""
  ours = [here, os.path.realpath(_ROOT / "configs")]
  file, line = next(f for f in reversed(frames) if f[0].startswith(tuple(ours)))
  return f"{path if file == here else os.path.relpath(file)}, line {line}"


def _text(error: BaseException) -> str:
  """What an exception says, in one line."""
  # A KeyError prints its text as a literal.
  while error.args and isinstance(error.args[0], BaseException):
    error = error.args[0]
  text = str(error.args[0] if isinstance(error, KeyError) else error)
  text = " ".join(text.split())
  # A locked section lists all of its values.
  text = re.sub(r'Other fields present: "\{.*?\}" ?', "", text)
  return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
