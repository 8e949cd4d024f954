"""Fields that were not asked for, as JSON has them, in every scheme."""

import datetime
import decimal
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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


def _table():
  far = 10**17
  return pa.table(
    {
      "id": pa.array([7, None]),
      "source": ["s", "t"],
      "raw": pa.array([b"\xff", b"a"]),
      "nested": pa.array([{"x": [1.5, float("nan")]}, None]),
      "when": pa.array([0, far], pa.timestamp("ms")),
    }
  )


EXPECTED = [
  {
    "id": 7,
    "source": "s",
    "raw": "/w==",
    "nested": {"x": [1.5, None]},
    "when": "1970-01-01T00:00:00",
  },
  {
    "id": None,
    "source": "t",
    "raw": "a",
    "nested": None,
    # Later than Python's last year.
    "when": "<value out of range: 100000000000000000>",
  },
]


def test_columns_of_any_type(tmp_path):
  path = tmp_path / "x.parquet"
  pq.write_table(_table(), path, row_group_size=1)
  source = _open(f"parquet:{path}")
  assert [source[i] for i in range(2)] == EXPECTED
  assert json.loads(json.dumps(EXPECTED)) == EXPECTED
  bad = pa.array([b"\xff", b"a"]).cast(pa.string(), safe=False)
  pq.write_table(_table().append_column("bad", bad), path)
  source = _open(f"parquet:{path}", on_bad_record="skip")
  assert (len(source), source.skipped, source[0]["bad"]) == (1, 1, "a")
  twice = _table().append_column("raw", pa.array([1, 2]))
  pq.write_table(twice, path)
  with pytest.raises(ValueError, match="two columns are called 'raw'"):
    _open(f"parquet:{path}")


def test_columns_of_the_library_datasets(tmp_path, monkeypatch):
  monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
  library = pytest.importorskip("datasets")
  library.Dataset(_table()).save_to_disk(tmp_path / "set")
  source = _open(f"hf:{tmp_path}/set@all")
  assert [source[i] for i in range(2)] == EXPECTED
  # A picture stays a file's bytes: nothing decodes it.
  kinds = {"source": library.Value("string"), "image": library.Image()}
  features = library.Features(kinds)
  image = {"bytes": b"\xff", "path": None}
  table = pa.table({"source": ["s"], "image": [image]}, features.arrow_schema)
  info = library.DatasetInfo(features=features)
  images = library.Dataset(table, info=info)
  images.save_to_disk(tmp_path / "images")
  assert _open(f"hf:{tmp_path}/images@all")[0]["image"] == {
    "bytes": "/w==",
    "path": None,
  }
