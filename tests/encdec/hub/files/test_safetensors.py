"""Safetensors files: read as the library writes them; damage is refused."""

import json
import struct

import pytest
import safetensors.numpy

from encdec.hub.files import weight_files
from encdec.hub.files.mmap import WeightFileError


def test_files_of_the_library_are_read(
  tmp_path, seed, make_tensors, assert_tensors_equal
):
  tensors = make_tensors(seed)
  safetensors.numpy.save_file(tensors, tmp_path / weight_files.SINGLE)
  assert_tensors_equal(weight_files.open_weights(tmp_path), tensors)


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_a_truncated_file_is_an_error_that_names_it(
  tmp_path, seed, kept, make_tensors, write_tensors
):
  write_tensors(tmp_path, make_tensors(seed))
  path = tmp_path / weight_files.SINGLE
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(WeightFileError, match=r"model\.safetensors.* truncated"):
    weight_files.open_weights(tmp_path)


def test_a_truncated_file_names_the_tensor(
  tmp_path, seed, make_tensors, write_tensors
):
  write_tensors(tmp_path, make_tensors(seed))
  path = tmp_path / weight_files.SINGLE
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(WeightFileError, match=r"'c\.half' ends at byte"):
    weight_files.open_weights(tmp_path)


def test_a_huge_header_is_refused_before_it_is_read(tmp_path):
  (tmp_path / weight_files.SINGLE).write_bytes(
    struct.pack("<Q", 1 << 60) + b"{}"
  )
  with pytest.raises(WeightFileError, match=f"header claims {1 << 60}"):
    weight_files.open_weights(tmp_path)


def _header(entry):
  text = json.dumps({"t": entry}).encode()
  return struct.pack("<Q", len(text)) + text + bytes(64)


@pytest.mark.parametrize(
  ("entry", "message"),
  [
    ({"dtype": "F9", "shape": [1], "data_offsets": [0, 4]}, "'F9'"),
    ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "4 bytes are not"),
    ({"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}, "damaged header"),
    ({"dtype": "F32", "shape": 3, "data_offsets": [0, 4]}, "damaged header"),
    ({"shape": [1], "data_offsets": [0, 4]}, "damaged header"),
    ("no object", "damaged header"),
    (
      {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]},
      "damaged header",
    ),
    (
      {"dtype": "F32", "shape": [0, 10**30], "data_offsets": [0, 0]},
      "damaged header",
    ),
    ({"dtype": "F32", "shape": [20], "data_offsets": [0, 80]}, "'t' ends at"),
  ],
)
def test_a_header_that_lies_is_refused(tmp_path, entry, message):
  (tmp_path / weight_files.SINGLE).write_bytes(_header(entry))
  with pytest.raises(WeightFileError, match=message):
    weight_files.open_weights(tmp_path)


@pytest.mark.parametrize(
  "text",
  [
    '{"__metadata__": [1]}',
    '{"__metadata__": "x"}',
    "[" * 100_000,
    '{"t": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},'
    ' "t": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}',
  ],
)
def test_a_damaged_header_is_refused(tmp_path, text):
  raw = text.encode()
  (tmp_path / weight_files.SINGLE).write_bytes(
    struct.pack("<Q", len(raw)) + raw + bytes(64)
  )
  with pytest.raises(WeightFileError, match="damaged header"):
    weight_files.open_weights(tmp_path)


def test_overlapping_tensors_are_refused(tmp_path):
  entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
  text = json.dumps(
    {"t": entry, "u": {**entry, "data_offsets": [4, 12]}}
  ).encode()
  (tmp_path / weight_files.SINGLE).write_bytes(
    struct.pack("<Q", len(text)) + text + bytes(64)
  )
  with pytest.raises(WeightFileError, match="'u' overlaps 't'"):
    weight_files.open_weights(tmp_path)
