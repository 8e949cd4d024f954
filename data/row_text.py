"""Rows of a batch for a reader: everything that the model sees, in columns."""

from collections.abc import Sequence

import numpy as np

from data.collate import Batch
from data.tokenizers.tokenizer import Tokenizer

_WIDTH = 100
_TEXT = 300


def row_text(
  batch: Batch, row: int, source: Tokenizer, target: Tokenizer
) -> str:
  """A row's texts, then its arrays by their names, position under position.

  Padding is counted, not shown: nothing attends to it.
  """
  lines = []
  for side, name, tokenizer in (
    ("source", "encoder_tokens", source),
    ("target", "decoder_targets", target),
  ):
    segments = batch[f"{name.split('_')[0]}_segments"][row]
    for segment in range(1, int(segments.max(initial=0)) + 1):
      ids = batch[name][row][segments == segment].tolist()
      text = " ".join(tokenizer.decode(ids).split())
      more = "..." if len(text) > _TEXT else ""
      lines.append(f"{side} {segment}: {text[:_TEXT]}{more}")
  for end, tokenizer in (("encoder", source), ("decoder", target)):
    lines += ["", *_side(batch, row, end, tokenizer)]
  return "\n".join(lines)


def _side(batch: Batch, row: int, end: str, tokenizer: Tokenizer) -> list[str]:
  arrays = {k: v[row] for k, v in batch.items() if k.startswith(f"{end}_")}
  segments = arrays[f"{end}_segments"]
  filled = np.flatnonzero(segments)
  size = int(filled[-1]) + 1 if len(filled) else 0
  table: list[tuple[str, list[str]]] = []
  for name, values in arrays.items():
    shown = values[:size].tolist()
    if np.issubdtype(values.dtype, np.integer):
      table.append((name, [str(value) for value in shown]))
    else:
      table.append((name, [f"{value:g}" for value in shown]))
    if name.endswith(("_tokens", "_inputs", "_targets")):
      table.append(("", [_visible(t) for t in tokenizer.token_strings(shown)]))
  lines = _columns(table)
  if len(segments) > size:
    lines.append(f"and {len(segments) - size} positions of padding")
  return lines


def _columns(table: Sequence[tuple[str, list[str]]]) -> list[str]:
  """Labelled rows of cells, aligned, broken where a line is full."""
  label = max(len(name) for name, _ in table) + 1
  columns = list(zip(*(cells for _, cells in table), strict=True))
  widths = [max(map(len, column)) + 1 for column in columns]
  lines: list[str] = []
  first = 0
  while first < len(columns):
    last, used = first, label
    while last < len(columns) and (
      last == first or used + widths[last] <= _WIDTH
    ):
      used += widths[last]
      last += 1
    for number, (name, _) in enumerate(table):
      cells = [columns[i][number].rjust(widths[i]) for i in range(first, last)]
      lines.append(f"{name:<{label}}{''.join(cells)}")
    lines.append("")
    first = last
  return lines


def _visible(token: str) -> str:
  """A token on one line, whatever it holds."""
  return "".join(
    c if c.isprintable() else c.encode("unicode_escape").decode() for c in token
  )
