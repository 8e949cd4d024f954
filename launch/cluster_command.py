"""Commands of a cluster: sbatch, kubectl, gcloud and the like."""

import contextlib
import functools
import os
import subprocess
from collections.abc import Sequence

from launch import local
from launch.program import Refusal

# What is wrong where a command is not there, by its name.
_WHERE = {
  "sbatch": "run this on a login node of the cluster",
  "squeue": "run this on a login node of the cluster",
  "kubectl": "install it, and get the cluster's credentials",
  "gcloud": "install the Google Cloud CLI",
}
# Characters of a command's own message that ours repeats.
_LONGEST = 400


class NotInstalled(Refusal):
  """A command is not there, and will not be a little later."""


def call(command: Sequence[str], text: str = "") -> str:
  """What a command prints; it is given `text`.

  Raises:
    Refusal: it is not installed, or fails; with the last line that it wrote.
  """
  status, output, errors = attempt(command, text)
  if status:
    line = last_line(errors) or last_line(output) or f"exit status {status}"
    raise Refusal(f"{name(command)} failed: {line}")
  return output


def attempt(command: Sequence[str], text: str = "") -> tuple[int, str, str]:
  """Exit status, stdout and stderr of a command.

  Raises:
    Refusal: it is not installed.
  """
  try:
    done = subprocess.run(
      command,
      input=text,
      capture_output=True,
      text=True,
      errors="replace",
      # A Ctrl-C is ours: it must not cut a submission in two. A kill does, and
      # nothing may be submitted after it that the next command did not find.
      start_new_session=True,
      preexec_fn=(
        functools.partial(local.die_with, os.getpid()) if _alone() else None
      ),
    )
  except OSError as error:
    raise missing(command, error) from error
  return done.returncode, done.stdout, done.stderr


def _alone() -> bool:
  """Whether this process has one thread: Python forks no other in peace."""
  with contextlib.suppress(OSError):
    return len(os.listdir("/proc/self/task")) == 1
  return False


def missing(command: Sequence[str], error: OSError) -> Refusal:
  """What to say of a command that could not be started."""
  tool = command[0]
  if not isinstance(error, FileNotFoundError):
    return Refusal(f"{tool} cannot be run: {error.strerror or error}")
  where = _WHERE.get(tool)
  fix = f": {where}, or print what it would get by --dry_run" if where else ""
  return NotInstalled(f"{tool} is not installed here{fix}")


def name(command: Sequence[str]) -> str:
  """The first words of a command, up to a flag, a number or the like."""
  words = [*command[:1]]
  for word in command[1:]:
    if not word.isascii() or not word.replace("-", "").isalpha():
      break
    if word.startswith("-"):
      break
    words.append(word)
  return " ".join(words)


def last_line(text: str) -> str:
  """The last line that says something, in its first 400 characters."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  # What follows an error only says how to ask for help, or who was told.
  errors = [line for line in lines if line.lower().startswith("error")]
  return (errors or lines or [""])[-1][:_LONGEST]


def last_line_of(path: str | os.PathLike[str]) -> str:
  """The same of a file; empty where it cannot be read."""
  with contextlib.suppress(OSError), open(path, "rb") as file:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 65536))
    return last_line(file.read().decode(errors="replace"))
  return ""
