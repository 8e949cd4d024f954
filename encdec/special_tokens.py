"""The ids that start, end and pad a target, and where each was found."""

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

ROLES = ("start", "end", "pad")
# The names that Hub files give to the roles.
HUB_NAMES = {
  "start": "decoder_start_token_id",
  "end": "eos_token_id",
  "pad": "pad_token_id",
}


@dataclasses.dataclass(frozen=True)
class TokenSource:
  """One place where ids may be set; None: it does not set this one.

  Attributes:
    where: what a reader would open to see it, such as "config.json".
    start, end, pad: as they were found; `resolve_special_tokens` checks them.
      The end may be several ids.
  """

  where: str
  start: Any = None
  end: Any = None
  pad: Any = None


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
  """The ids of one target side. `end` may be several ids, any of which ends.

  An id that was not needed and not found is None (`end`: empty).

  Attributes:
    where: role to the source that set it.
  """

  start: int | None
  end: tuple[int, ...]
  pad: int | None
  where: Mapping[str, str]

  def table(self) -> str:
    """One line a role: its ids and where they came from."""
    return "\n".join(
      f"{role:<5} {_shown(getattr(self, role)):>8}  from {self.where[role]}"
      for role in ROLES
      if role in self.where
    )

  def as_dict(self) -> dict[str, Any]:
    """Plain values, for a JSON file; `from_dict` reads them back."""
    return dataclasses.asdict(self) | {"end": list(self.end)}

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> "SpecialTokens":
    return cls(
      start=values["start"],
      end=tuple(values["end"]),
      pad=values["pad"],
      where=dict(values["where"]),
    )

  def __hash__(self):
    return hash((self.start, self.end, self.pad))


def token_source(where: str, hub: Mapping[str, Any]) -> TokenSource:
  """The ids that a Hub file sets; absent and null are the same."""
  return TokenSource(where, **{r: hub.get(n) for r, n in HUB_NAMES.items()})


def resolve_special_tokens(
  sources: Sequence[TokenSource],
  *,
  bos: tuple[str, int] | None = None,
  need: Sequence[str] = ROLES,
  setting: Mapping[str, str] = HUB_NAMES,
) -> SpecialTokens:
  """Takes each id from the first source that sets it.

  Args:
    sources: in order of precedence.
    bos: where the decoder's bos_token_id was found, and its value; it starts a
      target when no source sets the start. The pad token falls back to the
      (first) end token.
    need: the roles that must be found.
    setting: what the user sets for each role, for the error's words.

  Raises:
    ValueError: a needed id is set nowhere, or is no id.
  """
  found: dict[str, Any] = {}
  where: dict[str, str] = {}
  for role in ROLES:
    for source in sources:
      value = getattr(source, role)
      if value is None or (isinstance(value, Sequence) and not value):
        continue
      found[role] = _checked(role, value, source.where)
      where[role] = source.where
      break
  if "start" not in found and bos is not None:
    found["start"], where["start"] = bos[1], f"{bos[0]} (bos_token_id)"
  if "pad" not in found and "end" in found:
    found["pad"] = found["end"][0]
    where["pad"] = f"the end token, {where['end']}"
  for role in need:
    if role not in found:
      tried = ", ".join(source.where for source in sources)
      raise ValueError(
        f"the {role} token of the target is set nowhere (looked in: {tried}); "
        f"set {setting[role]}"
      )
  return SpecialTokens(
    start=found.get("start"),
    end=found.get("end", ()),
    pad=found.get("pad"),
    where=where,
  )


def _checked(role: str, value: Any, where: str) -> Any:
  """An id, or for the end a tuple of ids, all non-negative integers."""
  many = isinstance(value, Sequence) and not isinstance(value, str)
  found: list[Any] = list(value) if many else [value]
  ids: list[int] = []
  for token in found:
    whole = isinstance(token, numbers.Integral) and not isinstance(token, bool)
    if not whole or int(token) < 0 or (many and role != "end"):
      raise ValueError(
        f"the {role} token in {where} is {value!r}; it must be "
        + ("ids from 0 up" if role == "end" else "one id from 0 up")
      )
    ids.append(int(token))
  return tuple(ids) if role == "end" else ids[0]


def _shown(value: Any) -> str:
  if isinstance(value, tuple):
    return ",".join(str(token) for token in value)
  return str(value)
