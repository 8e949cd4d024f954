"""Round trips: which texts a tokenizer can write, and what it changes in them.

A model writes what its tokenizer decodes. A text that does not come back from
encoding and decoding is one that no model with this tokenizer ever writes.
"""

import dataclasses
import itertools
import unicodedata
from collections.abc import Iterable

# What may become of a text, from the least harm to the most.
KINDS = ("unchanged", "spaces", "case", "characters")
_NAMES = {
  "spaces": "differ in spaces alone",
  "case": "lose capitals or accents",
  "characters": "lose other characters",
}
# Characters of an example, and those before its first difference.
_SHOWN, _BEFORE = 60, 20


@dataclasses.dataclass(frozen=True)
class RoundTrips:
  """What became of some texts.

  Attributes:
    counts: of the texts, by kind.
    spaced: how many have other spaces, whatever else they lose.
    example: a text that is changed and what it becomes, of the worst kind
      that there is; None where all are unchanged.
  """

  counts: dict[str, int]
  spaced: int
  example: tuple[str, str] | None

  @property
  def total(self) -> int:
    return sum(self.counts.values())

  def share(self, kind: str) -> float:
    return self.counts[kind] / max(1, self.total)


def measure(pairs: Iterable[tuple[str, str]]) -> RoundTrips:
  """Of texts and what they have become."""
  counts: dict[str, int] = dict.fromkeys(KINDS, 0)
  examples: dict[str, tuple[str, str]] = {}
  spaced = 0
  for text, back in pairs:
    kind = compare(text, back)
    counts[kind] += 1
    spaced += kind in ("spaces", "case") and _spaced(text, back)
    examples.setdefault(kind, (text, back))
  changed = [kind for kind in KINDS[1:] if kind in examples]
  example = examples[changed[-1]] if changed else None
  return RoundTrips(counts, spaced, example)


def compare(text: str, back: str) -> str:
  """The kind of change; space at both ends is none, as for exact match."""
  if text.strip() == back.strip():
    return "unchanged"
  one, other = ("".join(t.split()) for t in (text, back))
  if one == other:
    return "spaces"
  return "case" if _folded(one) == _folded(other) else "characters"


def _spaced(text: str, back: str) -> bool:
  return _folded(text.strip()) != _folded(back.strip())


def _folded(text: str) -> str:
  """Without case and accents."""
  parts = unicodedata.normalize("NFD", text.casefold())
  return "".join(c for c in parts if unicodedata.category(c) != "Mn")


def describe(trips: RoundTrips) -> str:
  """A sentence: shares, and an example of bounded length."""
  parts = [
    f"{trips.share('unchanged'):.1%} of {trips.total} targets come back "
    "unchanged from the target tokenizer"
  ]
  parts += [
    f"{trips.share(kind):.1%} {name}"
    for kind, name in _NAMES.items()
    if trips.counts[kind]
  ]
  line = ", ".join(parts)
  if trips.example is None:
    return line
  text, back = trips.example
  alike = (a == b for a, b in zip(text, back, strict=False))
  first = sum(1 for _ in itertools.takewhile(bool, alike))
  shown = [_excerpt(t, max(0, first - _BEFORE)) for t in (text, back)]
  return f"{line}; {shown[0]} becomes {shown[1]}"


def _excerpt(text: str, start: int) -> str:
  end = start + _SHOWN
  before, after = "..." * (start > 0), "..." * (len(text) > end)
  return f"{before}{text[start:end]!r}{after}"
