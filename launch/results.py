"""The table of a sweep: a row for each member that has ended."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.program import Refusal

Row = dict[str, Any]


def best_metric(config: Mapping[str, Any]) -> tuple[str, str]:
  """The metric that chose a run's best checkpoint, and "min" or "max".

  Args:
    config: the config.json of a run.
  """
  first = config["data.eval"].split(",")[0]
  named = re.match(r"\s*([A-Za-z_][\w-]*)=", first)
  name = named[1] if named else "valid"
  metric = config["train.best_metric"] or f"eval/{name}/loss"
  return metric, config["train.best_mode"]


def outcome(folder: Path) -> Row:
  """Step and metrics of a run's best checkpoint; the last, where none is."""
  config = json.loads((folder / "config.json").read_text("utf-8"))
  metric, mode = best_metric(config)
  lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
  steps = [json.loads(line) for line in lines]
  # JSON has null for what was not finite.
  measured = [v for v in steps if v.get(metric) is not None]
  choose = min if mode == "min" else max
  best = choose(measured, key=lambda v: v[metric]) if measured else steps[-1]
  names = [n for n in best if n == "step" or n.startswith(("eval/", "train/"))]
  return {name: best[name] for name in names}


def read_table(path: Path) -> dict[str, Row]:
  """Rows by member; an absent table is empty.

  Raises:
    Refusal: it is damaged.
  """
  if not path.exists():
    return {}
  try:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["member"]: row for row in rows}
  except (ValueError, LookupError, TypeError) as error:
    raise Refusal(
      f"--workdir={path.parent}: {path} is damaged: restore or remove it; "
      "without it every member is asked again, and what is done stays done"
    ) from error


def write_table(path: Path, rows: Sequence[Row]) -> None:
  """Writes atomically: the table is the old one or the new one, whole."""
  partial = path.with_suffix(".partial")
  with open(partial, "w", encoding="utf-8") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def render(rows: Sequence[Row]) -> str:
  """The table as aligned text, one line a member."""
  names = ["member", "status", "step"]
  for row in rows:
    names += [n for n in row if n.startswith("eval/") and n not in names]
  cells = [names]
  for row in rows:
    values = [row.get(name, "") for name in names]
    cells.append(
      [f"{v:.4f}" if isinstance(v, float) else str(v) for v in values]
    )
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return "\n".join(
    "  ".join(map(str.ljust, line, widths)).rstrip() for line in cells
  )


def render_errors(rows: Sequence[Row]) -> str:
  """The last line of each failed member's error, one line a member."""
  return "\n".join(
    f"{row['member']}: {row['status']}: {row['error']}"
    for row in rows
    if row.get("error")
  )
