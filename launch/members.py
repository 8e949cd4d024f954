"""The members of a sweep: what its config's get_hyper() says, as commands."""

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch import experiment, local
from launch.experiment import suggest
from launch.program import Program, Refusal


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a sweep.

  name: its folder's, which depends on its overrides alone.
  flags: of main.py, the folder aside.
  fingerprint: of its flags and of every value of the config.
  """

  name: str
  flags: tuple[str, ...]
  fingerprint: str

  def command(self, workdir: Path) -> list[str]:
    return [sys.executable, str(local.MAIN), *self.program(workdir).flags]

  def program(self, workdir: Path) -> Program:
    return Program((*self.flags, f"--workdir={workdir / self.name}"))


def members(config: str, extra: Sequence[str] = ()) -> list[Member]:
  """The members of a config's get_hyper(), checked against its keys.

  Args:
    config: path of a config file, with or without :variant.
    extra: more flags of main.py, for every member.

  Raises:
    Refusal: no such file, no get_hyper() in it, or a wrong member.
  """
  path = config.partition(":")[0]
  values, hyper = experiment.read(config)
  for flag in extra:
    key = re.match(r"--?(?:no)?config\.([\w.]+)", flag)
    if key and key[1] not in values:
      near = suggest(key[1], [*values])
      raise Refusal(f"{flag}: the config has no key {key[1]!r}{near}")
  by_name: dict[str, Member] = {}
  for number, overrides in enumerate(hyper):
    unknown = [key for key in overrides if key not in values]
    if unknown:
      raise Refusal(
        f"{path}: get_hyper() member {number} sets {unknown[0]!r}, which is "
        f"no key of the config{suggest(unknown[0], [*values])}"
      )
    name = member_name(overrides)
    if name in by_name:
      raise Refusal(f"{path}: get_hyper() has the member {name} twice")
    settings = [f"--config.{key}={value}" for key, value in overrides.items()]
    flags_of_member = (f"--config={config}", *settings, *extra)
    fingerprint = digest(json.dumps([values, flags_of_member]))
    by_name[name] = Member(name, flags_of_member, fingerprint)
  if not by_name:
    raise Refusal(f"{path}: get_hyper() returns no members")
  return list(by_name.values())


def digest(text: str) -> str:
  """Eight characters that differ where texts do."""
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def member_name(overrides: Mapping[str, Any]) -> str:
  """A folder's name that depends on the overrides alone, in their order."""
  pairs = [f"{key}={value}" for key, value in overrides.items()]
  text = ",".join(pairs) or "base"
  name = re.sub(r"[^\w.,=+-]+", "_", text)
  if name == text and len(name) <= 100:
    return name
  # Different values must not meet in one folder.
  return f"{name[:100]}-{digest(text)}"
