"""Fields that were not asked for, as JSON has them, in every scheme."""

import datetime
import decimal
import json

import numpy as np
import pytest

from data.schemes import records
from data.sources import open_source


def _open(uri, fields=("source",), **settings):
  return open_source(uri, fields=fields, all_fields=True, **settings)


@pytest.mark.parametrize(
  ("value", "expected"),
  [
    ("é", "é"),
    (True, True),
    (1 << 70, 1 << 70),
    (0.1, 0.1),
    (float("nan"), None),
    (float("-inf"), None),
    ("é".encode(), "é"),
    (b"\xff\x00", "/wA="),
    (np.int64(3), 3),
    (np.float32("nan"), None),
    (np.bool_(True), True),
    (np.array([[1, 2]]), [[1, 2]]),
    (np.array([b"a", "b"], object), ["a", "b"]),
    (np.datetime64("2020-01-02T03:04:05.000000006"), None),
    (datetime.date(2020, 1, 2), "2020-01-02"),
    (datetime.timedelta(1), "1 day, 0:00:00"),
    (decimal.Decimal("1.10"), "1.10"),
    ({1: (b"a", [{"x": float("inf")}])}, {"1": ["a", [{"x": None}]]}),
  ],
)
def test_a_value_as_json_has_it(value, expected):
  if isinstance(value, np.datetime64):
    expected = "2020-01-02T03:04:05.000000006"
  found = records.as_json(value)
  assert found == expected and type(found) is type(expected)
  assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_lines_and_tables_of_text(tmp_path):
  (tmp_path / "x.jsonl").write_text('{"a": NaN, "source": "s", "b": {"c": 1}}')
  source = _open(f"jsonl:{tmp_path}/x.jsonl@all[:1]")
  assert source[0] == {"a": None, "source": "s", "b": {"c": 1}}
  only = open_source(f"jsonl:{tmp_path}/x.jsonl", fields=("source",))
  assert only[0] == {"source": "s"}

  (tmp_path / "x.csv").write_text("id,source,\n07,s,\n")
  assert _open(f"csv:{tmp_path}/x.csv")[0] == {
    "id": "07",
    "source": "s",
    "": "",
  }
  (tmp_path / "y.csv").write_text("a,source,a\n1,s,2\n")
  with pytest.raises(ValueError, match="line 1 names two fields 'a'"):
    _open(f"csv:{tmp_path}/y.csv")
  # Nobody asked for it.
  assert open_source(f"csv:{tmp_path}/y.csv", fields=("source",))[0]

  for side in ("s", "t"):
    (tmp_path / side).write_text(f"{side}\n")
  pair = {"source": "s", "target": "t"}
  assert _open(f"text:{tmp_path}/s::{tmp_path}/t")[0] == pair
  assert set(_open("dates@valid")[0]) == {"source", "target"}


def test_a_deep_field_is_a_bad_record(tmp_path):
  deep = "[" * 5000 + "]" * 5000
  (tmp_path / "x.jsonl").write_text(f'{{"source": "s", "a": {deep}}}\n')
  with pytest.raises(ValueError, match="line 1 is not JSON"):
    _open(f"jsonl:{tmp_path}/x.jsonl")
