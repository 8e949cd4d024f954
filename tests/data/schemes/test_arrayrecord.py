"""ArrayRecord: JSON objects by number; damaged files are refused."""

import json
import pathlib

import pytest
from array_record.python import array_record_module

from data.sources import open_source


@pytest.fixture
def write(tmp_path):
  def write(*records: bytes, name: str = "x") -> str:
    path = str(tmp_path / name)
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
    for record in records:
      writer.write(record)
    writer.close()
    return path

  return write


def _open(path, **settings):
  return open_source(
    f"arrayrecord:{path}", fields=("source", "target"), **settings
  )


GOOD = b'{"source": "a", "target": "b", "n": 1}'


@pytest.mark.parametrize(
  ("bad", "why"),
  [
    (b"", "is not JSON"),
    (b"\x0a\x05bytes", "is not JSON"),
    (b"\xff", "is not UTF-8"),
    (b"[]", "is a list, not a JSON object"),
    (b'{"source": "a"}', "has no field 'target'"),
    (b'{"source": null, "target": ""}', "has a NoneType in the field"),
  ],
)
def test_bad_record_is_named_or_skipped_and_counted(write, bad, why):
  path = write(GOOD, bad, GOOD, bad)
  with pytest.raises(ValueError, match=rf"x: record 1 {why}") as error:
    _open(path)
  assert "on_bad_record=skip" in str(error.value)
  source = _open(path, on_bad_record="skip")
  assert (len(source), source.skipped) == (2, 2)
  assert source[1] == {"source": "a", "target": "b"}
  assert source.locate(1).endswith("record 2")
  source = _open(path, on_bad_record="skip", all_fields=True)
  assert source[1] == {"source": "a", "target": "b", "n": 1}


@pytest.mark.parametrize(
  "damage",
  [
    lambda raw: raw[:-1],
    lambda raw: raw[: len(raw) // 2],
    lambda raw: b"",
    lambda raw: GOOD * 9,
    lambda raw: raw + b"more",
    lambda raw: raw[:40_000] + bytes([raw[40_000] ^ 1]) + raw[40_001:],
  ],
)
def test_a_damaged_file_is_refused_by_name(write, damage, capfd):
  records = [json.dumps({"source": "é" * i, "target": ""}) for i in range(400)]
  path = pathlib.Path(write(*(record.encode() for record in records)))
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=r"x: damaged or cut short"):
    _open(path, on_bad_record="skip")
