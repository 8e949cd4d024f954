"""Columns of any type, as JSON has them, of files and of `datasets`."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.schemes import arrow_values
from data.sources import open_source


def _open(uri, **settings):
  return open_source(uri, fields=("source",), all_fields=True, **settings)


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


def test_what_arrow_has_no_text_for_is_null():
  nanoseconds = pa.scalar(1, pa.timestamp("ns"))
  assert "00.000000001" in arrow_values.value(nanoseconds)
  times = pa.list_(pa.timestamp("ms"))
  assert arrow_values.value(pa.scalar([10**17], times)) is None
  assert arrow_values.value(pa.scalar([0], times)) == ["1970-01-01T00:00:00"]
  # But a text that is none is a bad record.
  bad = pa.array([b"\xff"]).cast(pa.string(), safe=False)
  with pytest.raises(UnicodeDecodeError):
    arrow_values.value(pa.ListArray.from_arrays([0, 1], bad)[0])
