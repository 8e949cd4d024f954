"""The config file of a sweep: its values and its members, as the file has them.

It is read in this process; what fails in it is refused, with its line.
"""

import contextlib
import difflib
import importlib.util
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from launch.program import Refusal

# Characters of an exception's own text that a message repeats.
_LONGEST = 300
_EXAMPLE = '[{"optim.lr": 1e-3}, {"optim.lr": 3e-3}]'


def read(config: str) -> tuple[dict[str, Any], list[Mapping[str, Any]]]:
  """The flat values of get_config(), and the overrides of get_hyper().

  Args:
    config: path of a config file, with or without :variant.

  Raises:
    Refusal: there is no such file, it fails, or it has no sweep.
  """
  path, _, variant = config.partition(":")
  _check_path(config, path)
  with _running(config, path):
    module = _load(path)
  for name, what in (
    ("get_config", "which returns a configuration, as in configs/dates.py"),
    ("get_hyper", f"which returns the members of a sweep, such as {_EXAMPLE}"),
  ):
    if not hasattr(module, name):
      raise Refusal(f"--config={config}: {path} has no {name}(), {what}")
  with _running(config, path):
    values = module.get_config(*([variant] if variant else []))
    given = module.get_hyper()
    members = list(given) if isinstance(given, Iterable) else [given]
  if not isinstance(values, ConfigDict):
    raise Refusal(
      f"--config={config}: get_config() returns a {type(values).__name__}, not "
      "a configuration: begin with that of configs/common.py, and return it"
    )
  if not all(isinstance(member, Mapping) for member in members):
    raise Refusal(
      f"--config={config}: get_hyper() must return a list of overrides, a dict "
      f"for each member, such as {_EXAMPLE}"
    )
  return dict(_flat(values)), members


def suggest(name: str, known: Sequence[str]) -> str:
  """The nearest of the known names, as the end of a sentence."""
  near = difflib.get_close_matches(name, known, n=1)
  return f"; did you mean {near[0]}?" if near else ""


def _check_path(config: str, path: str) -> None:
  if os.path.isdir(path):
    raise Refusal(
      f"--config={config}: {path} is a folder; name a file in it, such as "
      "configs/dates.py"
    )
  if not os.path.isfile(path):
    near = suggest(path, [str(p) for p in Path(path).parent.glob("*.py")])
    raise Refusal(f"--config={config}: there is no file {path}{near}")
  if not path.endswith(".py"):
    raise Refusal(
      f"--config={config}: {path} is no file of Python; name one, such as "
      "configs/dates.py"
    )


def _load(path: str) -> ModuleType:
  spec = importlib.util.spec_from_file_location("sweep_config", path)
  assert spec and spec.loader, "it ends in .py"
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@contextlib.contextmanager
def _running(config: str, path: str) -> Iterator[None]:
  """Inside, code of the file runs."""
  try:
    yield
  except Exception as error:
    text = " ".join(str(error).split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    # A config refuses a variant by its own name.
    if not text.startswith(f"{config}: "):
      place = _place(error, path)
      text = f"{config}: {place}{type(error).__name__}: {text}"
    raise Refusal(f"--config={text}") from error


def _place(error: Exception, path: str) -> str:
  """The last line of the file that an exception passed."""
  frames = [
    (frame.filename, frame.lineno)
    for frame in traceback.extract_tb(error.__traceback__)
  ]
  if isinstance(error, SyntaxError):
    frames.append((error.filename or "", error.lineno))
  here = os.path.realpath(path)
  lines = [line for file, line in frames if os.path.realpath(file) == here]
  return f"line {lines[-1]}: " if lines else ""


def _flat(section: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
  for key, value in section.items():
    if isinstance(value, ConfigDict):
      yield from _flat(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value
