"""Patience: counted from the rows that a run has written."""

import json

import pytest

from train.progress.patience import Patience


def write(folder, values):
  """A row a step; those of an even step are evaluated."""
  rows = []
  for index, value in enumerate(values):
    rows.append({"step": 2 * index + 1, "train/loss": 1.0})
    rows.append({"step": 2 * index + 2, "eval/a/x": value})
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (folder / "metrics.jsonl").write_text(text)


@pytest.mark.parametrize(
  ("mode", "values", "spent"),
  [
    ("min", [3, 2, 1, 0], []),
    ("min", [3, 2, 2, 2, 2], [8, 10]),
    ("min", [3, 1, 2, 0.5, 0.7, 0.6], [12]),
    ("max", [3, 2, 4, 1, 4, 5], [10]),
    ("max", [3, None, None, 4], [6]),
    ("max", [None, None, 1, 0], [4]),
  ],
)
def test_it_is_spent_where_nothing_improves(tmp_path, mode, values, spent):
  write(tmp_path, values)
  rule = Patience("eval/a/x", mode, 2, tmp_path)
  steps = [2 * i + 2 for i in range(len(values))]
  # Rows of later steps are not seen: they may be cut.
  assert [step for step in steps if rule.is_spent(step)] == spent
  assert [step for step in steps if rule.explain(step)] == spent
  endless = Patience("eval/a/x", mode, 0, tmp_path)
  assert not any(endless.is_spent(step) for step in steps)


def test_it_says_why(tmp_path):
  write(tmp_path, [3, 1, 2, 2])
  said = Patience("eval/a/x", "min", 2, tmp_path).explain(8)
  assert said.startswith("eval/a/x has not improved since step 4 (1.0000), in ")
  write(tmp_path, [None, None])
  said = Patience("eval/a/x", "min", 2, tmp_path).explain(4)
  assert "has not improved ever" in said


def test_a_run_without_rows_has_all_of_it(tmp_path):
  assert not Patience("eval/a/x", "min", 1, tmp_path).is_spent(0)
