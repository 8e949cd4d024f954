"""Groups of parameters, by patterns of their paths, with their own settings."""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def _whole(text: str) -> int:
  value = int(text)
  if value < 0:
    raise ValueError(text)
  return value


def _finite(text: str) -> float:
  value = float(text)
  if not (value >= 0 and math.isfinite(value)):
    raise ValueError(text)
  return value


def _flag(text: str) -> bool:
  return {"true": True, "false": False}[text.lower()]


# How each setting is read, and what it may be.
_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
  "lr": (_finite, "a number from 0"),
  "lr_scale": (_finite, "a number from 0"),
  "schedule": (str, "a schedule"),
  "warmup_steps": (_whole, "a whole number from 0"),
  "weight_decay": (_finite, "a number from 0"),
  "b1": (_finite, "a number from 0"),
  "b2": (_finite, "a number from 0"),
  "eps": (_finite, "a number from 0"),
  "frozen": (_flag, "true or false"),
  "frozen_steps": (_whole, "a whole number from 0"),
}


@dataclasses.dataclass(frozen=True)
class Group:
  """The parameters whose stored paths match a pattern.

  Attributes:
    pattern: a glob; "*" matches "/" too.
    settings: what takes the place of a field of `OptimConfig`, and `lr_scale`.
    frozen: whether they stay as they are.
    frozen_steps: the first updates, in which they do; their moments begin then,
      while their schedule counts all updates.
  """

  pattern: str
  settings: Mapping[str, Any]
  frozen: bool
  frozen_steps: int

  def matches(self, path: str) -> bool:
    return fnmatch.fnmatchcase(path, self.pattern)


def parse(texts: Sequence[Any]) -> tuple[Group, ...]:
  """The groups of `optim.groups`, "pattern: setting=value, ..." each.

  Raises:
    ValueError: a text is no group; it names `optim.groups`.
  """
  return tuple(_parse_one(text) for text in texts)


def _parse_one(text: Any) -> Group:
  refusal = f"optim.groups: {text!r}"
  if not isinstance(text, str) or ":" not in text:
    raise ValueError(
      f"{refusal} is no group; write 'pattern: setting=value, ...', such as "
      "'*/cross_attention*: lr_scale=10'"
    )
  pattern, _, rest = (part.strip() for part in text.partition(":"))
  settings: dict[str, Any] = {}
  for word in rest.split(","):
    name, _, value = (part.strip() for part in word.partition("="))
    if name not in _READERS:
      raise ValueError(
        f"{refusal} has no setting {name!r}; it is one of {', '.join(_READERS)}"
      )
    if name in settings:
      raise ValueError(f"{refusal} sets {name} twice; set it once")
    read, allowed = _READERS[name]
    try:
      settings[name] = read(value)
    except (ValueError, KeyError, OverflowError):
      raise ValueError(
        f"{refusal}: {name} must be {allowed}, not {value!r}"
      ) from None
  if {"lr", "lr_scale"} <= set(settings):
    raise ValueError(f"{refusal} sets lr and lr_scale; set one of them")
  frozen = settings.pop("frozen", False)
  frozen_steps = settings.pop("frozen_steps", 0)
  if frozen and (settings or frozen_steps):
    raise ValueError(
      f"{refusal} is frozen, so that nothing else can be set; leave it out"
    )
  return Group(pattern, settings, frozen, frozen_steps)


def group_of(path: str, groups: Sequence[Group]) -> Group | None:
  """The group of a parameter; None: it has the settings of `optim` itself."""
  return next((group for group in groups if group.matches(path)), None)


def check(groups: Sequence[Group], paths: Iterable[str]) -> None:
  """Checks groups against the paths of what a loss reaches.

  Raises:
    ValueError: a pattern matches none of them, two match the same one, or
      nothing is left to train; it names `optim.groups`.
  """
  paths = list(paths)
  for group in groups:
    if not any(group.matches(path) for path in paths):
      raise ValueError(
        f"optim.groups: {group.pattern!r} matches no parameter that is "
        f"trained; they have paths such as {', '.join(_examples(paths))}"
      )
  for path in paths:
    both = [group.pattern for group in groups if group.matches(path)]
    if len(both) > 1:
      raise ValueError(
        f"optim.groups: {both[0]!r} and {both[1]!r} both match {path!r}; make "
        "them apart"
      )
  own = [group_of(path, groups) for path in paths]
  if all(group and (group.frozen or group.frozen_steps) for group in own):
    raise ValueError(
      "optim.groups freezes every parameter, so that the first update has "
      "nothing to train; leave out a group"
    )


def _examples(paths: Sequence[str]) -> list[str]:
  """Three paths that tell how they look: the first, the middle, the last."""
  ordered = sorted(paths)
  return [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
