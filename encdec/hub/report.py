"""What loading a checkpoint found, and which of it was to be expected."""

import dataclasses
from typing import Any

from encdec.hub.mapped import WeightFileError

Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]


class LoadingError(WeightFileError):
  """A checkpoint does not hold what the model's config asks for."""


@dataclasses.dataclass(frozen=True)
class LoadingReport:
  """Hub names of tensors, as a composite checkpoint has them.

  Attributes:
    missing: the model has it, the checkpoint does not, and it should.
    unexpected: the checkpoint holds it and nothing is known of it.
    mismatched: name, shape found, shape wanted.
    initialised: drawn at random instead of read.
    expected: those of `initialised` that no checkpoint of the kind holds:
      cross-attention of a fresh decoder, the projection between widths, a
      pooler, which no output depends on.
    unused: known and not needed: copies of a tied head, buffers, the head of
      a checkpoint that became an encoder, the pooler of one that became a
      decoder.
    shared: the decoder's, which equal the encoder's and are stored once.
  """

  missing: tuple[str, ...] = ()
  unexpected: tuple[str, ...] = ()
  mismatched: tuple[Mismatch, ...] = ()
  initialised: tuple[str, ...] = ()
  expected: tuple[str, ...] = ()
  unused: tuple[str, ...] = ()
  shared: tuple[str, ...] = ()

  def as_dict(self) -> dict[str, Any]:
    """With the names of transformers' `output_loading_info`."""
    return {
      "missing_keys": list(self.missing),
      "unexpected_keys": list(self.unexpected),
      "mismatched_keys": list(self.mismatched),
      "initialised_keys": list(self.initialised),
      "expected_keys": list(self.expected),
      "unused_keys": list(self.unused),
      "shared_keys": list(self.shared),
      "error_msgs": [],
    }

  def summary(self) -> str:
    """One line for each kind that is not empty."""
    lines = []
    for kind in ("missing", "unexpected", "mismatched", "initialised"):
      names = getattr(self, kind)
      if kind == "initialised":
        new = [name for name in names if name not in self.expected]
        if self.expected:
          lines.append(f"initialised as expected: {_few(self.expected)}")
        names = new
      if names:
        lines.append(f"{kind}: {_few(names)}")
    if not lines:
      lines.append("every tensor was read")
    if self.shared:
      lines.append(f"equal on both sides, stored once: {_few(self.shared)}")
    return "\n".join(lines)


def check(
  report: LoadingReport, where: str, *, ignore_mismatched: bool
) -> None:
  """Raises LoadingError where the checkpoint is not what it should be."""
  problems = []
  if report.missing:
    problems.append(
      f"lacks {_few(report.missing)}; pass initialise_missing=True to draw "
      "them at random"
    )
  if report.unexpected:
    problems.append(
      f"holds {_few(report.unexpected)}, unknown to this architecture; check "
      "that config.json belongs to these weights"
    )
  if report.mismatched and not ignore_mismatched:
    shapes = [
      f"{name} {list(found)} (the config implies {list(wanted)})"
      for name, found, wanted in report.mismatched
    ]
    problems.append(
      f"has other shapes: {_few(shapes)}; correct config.json, pass "
      "ignore_mismatched_sizes=True to draw them at random, or for a longer "
      "table of positions encoder_ or decoder_position_extension="
    )
  if problems:
    raise LoadingError(f"{where} " + "; and ".join(problems))


def _few(names) -> str:
  """The first names, and how many there are."""
  shown = ", ".join(str(name) for name in names[:5])
  return shown if len(names) <= 5 else f"{shown}, ... ({len(names)} in all)"
