"""What a launcher starts: a command of main.py, whose flags stand after --.

python -m launch.slurm [flags of the launcher] -- [flags of main.py]
"""

import dataclasses
import difflib
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, NoReturn

from absl import flags

_EXAMPLE = "-- --config=configs/dates.py:smoke --workdir=runs/two"
# A name that Slurm, Kubernetes and Google Cloud all take.
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 40


class Refusal(ValueError):
  """A command cannot be run; the message says what to change."""


@dataclasses.dataclass(frozen=True)
class Program:
  """A command of main.py.

  Attributes:
    flags: of main.py, as they were given.
  """

  flags: tuple[str, ...]

  def __post_init__(self) -> None:
    first = self.flags[0] if self.flags else ""
    if not first:
      raise Refusal(
        f"there are no flags of main.py: pass them after --, as in: {_EXAMPLE}"
      )
    if not first.startswith("-"):
      raise Refusal(f"{first!r} is no flag of main.py: write --flag=value")
    for text in self.flags:
      if "\0" in text:
        raise Refusal(f"{text!r}: no command line holds a zero character")

  def value(self, flag: str) -> str:
    """The last value that a flag of main.py is given; empty: none."""
    value = ""
    for word, after in zip(self.flags, [*self.flags[1:], ""], strict=True):
      name, equals, text = word.partition("=")
      if name in (f"-{flag}", f"--{flag}"):
        value = text if equals else after
    return value

  @property
  def workdir(self) -> str:
    """The folder of the run.

    Raises:
      Refusal: none is given.
    """
    if not (folder := self.value("workdir")):
      raise Refusal(
        "--workdir is missing after --: pass a folder that every host sees, "
        "as in: -- --config=... --workdir=/shared/runs/name"
      )
    return folder


def check_name(name: str) -> str:
  """The name of a job, which every cluster takes.

  Raises:
    Refusal: it has other characters, or too many.
  """
  if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
    raise Refusal(
      f"--name={name}: write at most {_LONGEST_NAME} small letters, digits and "
      "-, the first one a letter, such as --name=bert2bert"
    )
  return name


def name_of(program: Program) -> str:
  """A job's name, of the last part of the workdir."""
  last = PurePosixPath(program.workdir).name.lower()
  name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")
  name = name if name[:1].isalpha() else f"run-{name}"
  return name[:_LONGEST_NAME].strip("-")


def parse(
  argv: Sequence[str], own: flags.FlagValues = flags.FLAGS
) -> list[str]:
  """Parses flags of a launcher; those of main.py must stand after --.

  Args:
    argv: the command line, with the launcher's name.
    own: the launcher's flags.

  Returns:
    The launcher's name, and what stands after --.
  """
  try:
    words = own([*argv])
  except flags.UnrecognizedFlagError as error:
    mine, theirs = _split(argv[1:], own)
    near = difflib.get_close_matches(error.flagname, own, cutoff=0.8)
    refuse(
      f"--{error.flagname} is no flag of this command"
      + (
        f"; did you mean --{near[0]}?"
        if near
        else ": flags of main.py stand after --, as in: "
        + shlex.join([*mine, "--", *theirs])
      )
    )
  except (flags.Error, ValueError) as error:
    refuse(f"{str(error).removeprefix('flag ')} (see --help)")
  return words


def _split(
  words: Sequence[str], own: flags.FlagValues
) -> tuple[list[str], list[str]]:
  """Flags of this command with their values, and all else."""
  mine, theirs = [], []
  group = theirs
  for number, word in enumerate(words):
    if word == "--":
      return mine, [*theirs, *words[number + 1 :]]
    if word.startswith("-"):
      name = word.lstrip("-").partition("=")[0]
      known = name in own or name.removeprefix("no") in own
      group = mine if known else theirs
    group.append(word)
  return mine, theirs


def values(own: flags.FlagValues) -> Callable[[str], Any]:
  """`values(own)("name")`: the value of a flag."""
  return lambda flag: own[flag].value


def refuse(reason: object) -> NoReturn:
  """Ends this command by one line."""
  sys.exit(f"error: {reason}")


def launch(
  document: str | None,
  own: flags.FlagValues,
  start: Callable[[Program], int],
) -> NoReturn:
  """The whole of a launcher's command: parses, starts, and exits.

  Args:
    document: the launcher's, for --help.
    own: the launcher's flags, and no others.
    start: gives the exit status.
  """
  before = sys.argv[1:]
  before = before[: before.index("--")] if "--" in before else before
  if {"--help", "-help", "-h"} & set(before):
    print(f"{document}\n{own.get_help()}")
    sys.exit(0)
  words = parse(sys.argv, own)
  try:
    sys.exit(start(Program(tuple(words[1:]))))
  except Refusal as refusal:
    refuse(refusal)
