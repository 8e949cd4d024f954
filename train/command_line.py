"""What a command line may say: flags, modes and overrides.

Like `validate`, it refuses with the thing, its value and the fix.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.config import Config
from train.validate import Refusal, flatten, suggest

OVERRIDE = re.compile(r"^--?(?:no)?config\.([\w.]+)")


def check_flags(
  config: Any, workdir: str, mode: str, modes: Sequence[str]
) -> None:
  """The flags that every run needs."""
  if mode not in modes:
    raise Refusal(f"--mode={mode}: choose one of {', '.join(modes)}")
  if config is None:
    raise Refusal(
      "--config is missing: pass a file, --config=configs/quickstart.py"
    )
  try:
    flatten(config)
  except OSError as error:
    raise Refusal(f"--config: {error.__cause__ or error}") from error
  if not workdir:
    raise Refusal("--workdir is missing: pass a folder, --workdir=runs/name")
  check_path("workdir", workdir)


def check_mode(
  mode: str, given: Sequence[str], modes: Mapping[str, Sequence[str]]
) -> None:
  """Every flag that was given is one that the mode heeds.

  Args:
    modes: those that heed a flag, by flag.
  """
  for flag in given:
    if mode not in modes[flag]:
      raise Refusal(
        f"--{flag} is not heeded by --mode={mode}: leave it out, or add "
        f"--mode={modes[flag][0]}"
      )


def check_path(flag: str, path: str) -> None:
  """A folder or file to write must be on a file system."""
  if "://" in path:
    raise Refusal(
      f"--{flag}={path}: files are written and renamed in place, which a "
      "bucket cannot do; mount it, and give the path"
    )
  folders = Path(path).absolute().parents
  if flag == "workdir":
    folders = (Path(path).absolute(), *folders)
  for folder in folders:
    if folder.exists() and not folder.is_dir():
      raise Refusal(f"--{flag}={path}: {folder} is a file; choose a folder")


def check_arguments(arguments: Sequence[str]) -> None:
  """Words that are no flag are a typing error."""
  if arguments:
    raise Refusal(
      f"{arguments[0]!r} is not a flag: write --config.section.key=value"
    )


def check_overrides(arguments: Sequence[str], config: Config) -> None:
  """Every --config.section.key names a key that exists."""
  known = list(flatten(config))
  for argument in arguments:
    match = OVERRIDE.match(argument)
    key = match.group(1) if match else ""
    if key not in known:
      raise Refusal(f"{argument}: there is no key {key!r}{suggest(key, known)}")
