"""The table of a sweep: best steps, a damaged file, and its text."""

import json

import pytest

from launch import results
from launch.program import Refusal


def test_a_value_that_was_not_finite_is_not_the_best(tmp_path):
  config = {
    "data.eval": "a@b",
    "train.best_metric": "",
    "train.best_mode": "min",
  }
  (tmp_path / "config.json").write_text(json.dumps(config))
  rows = [
    {"step": 1, "eval/valid/loss": 2.0},
    {"step": 2, "eval/valid/loss": None},
  ]
  (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
  assert results.outcome(tmp_path)["step"] == 1


def test_a_damaged_table_is_refused(tmp_path):
  path = tmp_path / "results.jsonl"
  path.write_text('{"member": "a"}\n{"memb')
  with pytest.raises(Refusal, match=r"results\.jsonl is damaged"):
    results.read_table(path)


def test_a_table_is_read_as_it_was_written(tmp_path):
  path = tmp_path / "results.jsonl"
  assert results.read_table(path) == {}
  rows = [{"member": "a", "step": 1}, {"member": "b", "error": "é"}]
  results.write_table(path, rows)
  assert list(results.read_table(path).values()) == rows


def test_errors_stand_under_the_table():
  rows = [
    {"member": "a", "status": "finished", "step": 2, "eval/x/loss": 0.25},
    {"member": "b=1", "status": "exit 1", "error": "error: no such file"},
  ]
  assert results.render(rows).splitlines() == [
    "member  status    step  eval/x/loss",
    "a       finished  2     0.2500",
    "b=1     exit 1",
  ]
  assert results.render_errors(rows) == "b=1: exit 1: error: no such file"
