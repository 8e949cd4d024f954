"""Inputs are read by their extension, as UTF-8, or refused."""

import gzip
import json

import pytest

from configs import dates
from data.schemes.file_extensions import uri_of
from train.modes.prediction_file import Fields
from train.modes.prediction_inputs import TextFile, open_inputs


def test_lines_are_read_as_utf_8_or_named(tmp_path):
  path = tmp_path / "in.txt"
  path.write_bytes(b"\xef\xbb\xbfred\nblue\n")
  lines = TextFile(str(path), Fields()).read(0)
  assert [one.text for one in lines] == ["red", "blue"]
  path.write_bytes(b"red\ncaf\xe9\n")
  with pytest.raises(ValueError, match=r"in\.txt: line 2 is not UTF-8"):
    TextFile(str(path), Fields())


@pytest.mark.parametrize("name", ["in.csv", "in.TSV", "in.csv.gz", "in.jsonl"])
def test_an_input_is_read_by_its_extension(name, tmp_path):
  rows = [{"source": "red, blue", "x": "1"}, {"source": "green", "x": "2"}]
  if name.endswith("jsonl"):
    text = "".join(json.dumps(row) + "\n" for row in rows)
  else:
    mark = "\t" if "TSV" in name else ","
    cells = [["source", "x"], *([f'"{r["source"]}"', r["x"]] for r in rows)]
    text = "".join(f"{mark.join(row)}\n" for row in cells)
  raw = text.encode()
  path = tmp_path / name
  path.write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
  inputs = open_inputs(str(path), dates.get_config(), Fields())
  assert [row.text for row in inputs.read(0)] == ["red, blue", "green"]
  again = open_inputs(uri_of(str(path)), dates.get_config(), Fields())
  assert again.fingerprint == inputs.fingerprint
