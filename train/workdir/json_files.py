"""JSON and text that a run writes into its folder, and reads back."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.io import atomic_write
from data.io.error_text import DAMAGE, fault
from train.errors import Refusal


def write_json(path: Path, value: Any) -> None:
  """Writes atomically: the file is whole or absent."""
  write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
  """Writes atomically: the file is whole or absent."""
  path.parent.mkdir(parents=True, exist_ok=True)
  atomic_write.write_text(path, text)


def read_json(path: Path, *keys: str) -> dict[str, Any]:
  """An object with these keys that a run wrote into its folder.

  Raises:
    Refusal: it is not; the message names the file and the fault.
  """
  with naming_damage(path):
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
      raise TypeError(f"it holds a {type(values).__name__}, no object")
    for key in keys:
      values[key]
  return values


@contextlib.contextmanager
def naming_damage(path: Path) -> Iterator[None]:
  try:
    yield
  except DAMAGE as error:
    raise Refusal(
      f"{path} is damaged ({fault(error)}): restore it, or choose another "
      "--workdir"
    ) from error
