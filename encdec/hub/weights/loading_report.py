"""The report of loading a checkpoint: missing, unexpected, unused tensors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from encdec.hub.error_text import few, plain
from encdec.hub.files.mmap import WeightFileError
from encdec.hub.weights.tensor_map import is_projection

Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]


class LoadingError(WeightFileError):
  """A checkpoint does not hold what the model's config asks for."""


@dataclasses.dataclass(frozen=True)
class Remedies:
  """Advice for error messages about weights that do not fit.

  Attributes:
    missing: about tensors that a checkpoint lacks.
    mismatched: about those of another shape; follows "correct config.json, ".
    unshared: about sides that should be equal and are not; ends a sentence.
    extension: what the option to lengthen a table of positions is called.
  """

  missing: str
  mismatched: str
  unshared: str
  extension: str

  def of(self, side: str | None) -> "Remedies":
    """The advice with a side's name, or "pair", in place of `{side}`."""
    words = {
      name: text.format(side=side or "pair")
      for name, text in dataclasses.asdict(self).items()
    }
    return Remedies(**words)


OF_PYTHON = Remedies(
  missing="pass initialise_missing=True to draw them at random",
  mismatched="pass ignore_mismatched_sizes=True to draw them at random, or for "
  "a longer table of positions encoder_ or decoder_position_extension=",
  unshared="use share='none'",
  extension="position_extension",
)


@dataclasses.dataclass(frozen=True)
class LoadingReport:
  """Hub names of tensors, as a composite checkpoint has them.

  Attributes:
    missing: the model has it, the checkpoint does not, and it should.
    unexpected: the checkpoint holds it and nothing is known of it.
    mismatched: name, shape held, shape wanted.
    initialised: drawn at random instead of read.
    expected: those of `initialised` that no checkpoint of the kind holds:
      cross-attention of a fresh decoder, the projection between widths, a
      pooler, which no output depends on, a head that was not promised.
    heads: those of `expected` that are a language-model head's, which the
      checkpoint's `architectures` do not promise.
    projection: those of `expected` that are the projection's, where the
      decoder's cross-attention was read, which was trained behind another.
    unused: known and not needed: copies of a tied head, buffers, heads of
      other tasks, the head of a checkpoint that became an encoder, a pooler
      that the model does not have.
    shared: the decoder's, which equal the encoder's and are stored once.
  """

  missing: tuple[str, ...] = ()
  unexpected: tuple[str, ...] = ()
  mismatched: tuple[Mismatch, ...] = ()
  initialised: tuple[str, ...] = ()
  expected: tuple[str, ...] = ()
  heads: tuple[str, ...] = ()
  projection: tuple[str, ...] = ()
  unused: tuple[str, ...] = ()
  shared: tuple[str, ...] = ()

  def as_dict(self) -> dict[str, Any]:
    """The report as transformers' `output_loading_info`."""
    keys = {
      f"{name.removesuffix('s')}_keys": list(names)
      for name, names in vars(self).items()
    }
    return {**keys, "error_msgs": []}

  def warning(self) -> str | None:
    """A warning if a head or projection was drawn at random; else None."""
    said = []
    if self.heads:
      said.append(
        "the decoder's checkpoint holds no language-model head, and its "
        f"config.json promises none: {few(self.heads)} were drawn at random; "
        "train the model before its outputs are used"
      )
    if self.projection:
      said.append(
        "the decoder's checkpoint holds cross-attention, and not the "
        "projection of the encoder's states that it was trained with: "
        f"{few(self.projection)} were drawn at random; train the model, or "
        "start from the whole pair"
      )
    elif any(map(is_projection, self.unused)):
      said.append(
        "the decoder's checkpoint holds a projection of the encoder's states "
        "with which its cross-attention was trained, and this pair has no "
        "place for it: train the model before its outputs are used"
      )
    return "\n".join(said) or None

  def summary(self) -> str:
    """One line for each kind that is not empty."""
    lines = []
    for kind in ("missing", "unexpected", "mismatched", "initialised"):
      names = getattr(self, kind)
      if kind == "initialised":
        new = [name for name in names if name not in self.expected]
        if self.expected:
          lines.append(f"initialised as expected: {few(self.expected)}")
        names = new
      if names:
        lines.append(f"{kind}: {few(map(plain, names))}")
    if not lines:
      lines.append("every tensor was read")
    if self.unused:
      lines.append(f"left aside: {few(map(plain, self.unused))}")
    if self.shared:
      lines.append(f"equal on both sides, stored once: {few(self.shared)}")
    return "\n".join(lines)


def check(
  report: LoadingReport,
  where: str,
  *,
  ignore_mismatched: bool,
  remedies: Remedies,
  architectures: Sequence[str] = (),
) -> None:
  """Raises LoadingError if tensors are missing, unknown or of other shapes."""
  problems = []
  if report.missing:
    names = few(map(plain, architectures))
    by = f", promised by its architectures ({names})" if architectures else ""
    problems.append(f"lacks {few(report.missing)}{by}; {remedies.missing}")
  if report.unexpected:
    names = few(map(plain, report.unexpected))
    problems.append(
      f"holds {names}, unknown to this architecture; check that config.json "
      "belongs to these weights"
    )
  if report.mismatched and not ignore_mismatched:
    shapes = [
      f"{name} {list(held)} (the config implies {list(wanted)})"
      for name, held, wanted in report.mismatched
    ]
    problems.append(
      f"has other shapes: {few(shapes)}; correct config.json, "
      f"{remedies.mismatched}"
    )
  if problems:
    raise LoadingError(f"{where} " + "; and ".join(problems))
