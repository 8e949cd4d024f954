"""Weight files: read checked, written atomically, refused by name."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from encdec.hub.files import formats, writer
from encdec.hub.files.mmap import WeightFileError


def _tensors(seed):
  rng = np.random.default_rng(seed)
  return {
    "a.weight": rng.normal(size=(3, 5)).astype(np.float32),
    "b.bias": rng.normal(size=(7,)).astype(ml_dtypes.bfloat16),
    "c.half": rng.normal(size=(2, 2)).astype(np.float16),
    "d.empty": np.zeros((0, 4), np.float32),
    "e.scalar": np.array(3.5, np.float32),
  }


def _write(folder, tensors, limit="1GB"):
  outgoing = [
    writer.Outgoing(name, a.shape, a.dtype, lambda a=a: a)
    for name, a in tensors.items()
  ]
  writer.write_weights(folder, outgoing, limit)


def _assert_equal(found, wanted):
  assert set(found) == set(wanted)
  for name, array in wanted.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("limit", ["1GB", 20])
def test_written_files_are_read_back_by_us_and_by_safetensors(
  tmp_path, seed, limit
):
  tensors = _tensors(seed)
  _write(tmp_path, tensors, limit)
  _assert_equal(formats.open_weights(tmp_path), tensors)
  theirs = {}
  for path in tmp_path.glob("*.safetensors"):
    theirs |= safetensors.numpy.load_file(path)
  _assert_equal(theirs, tensors)
  assert (tmp_path / formats.INDEX).exists() == (limit == 20)


def test_files_of_the_library_are_read(tmp_path, seed):
  tensors = _tensors(seed)
  safetensors.numpy.save_file(tensors, tmp_path / formats.SINGLE)
  _assert_equal(formats.open_weights(tmp_path), tensors)


@pytest.mark.parametrize("first", ["1GB", 20])
@pytest.mark.parametrize("second", ["1GB", 40])
def test_a_second_save_replaces_the_first(tmp_path, seed, first, second):
  _write(tmp_path, _tensors(seed), first)
  tensors = _tensors(seed + 1)
  _write(tmp_path, tensors, second)
  _assert_equal(formats.open_weights(tmp_path), tensors)
  named = {formats.SINGLE}
  if second == 40:
    named = {
      formats.INDEX,
      *formats.shard_names(tmp_path / formats.INDEX).values(),
    }
  assert {path.name for path in tmp_path.iterdir()} == named


def test_a_save_that_fails_leaves_the_old_weights(tmp_path, seed):
  tensors = _tensors(seed)
  _write(tmp_path, tensors)

  def fail():
    raise RuntimeError("the disk is gone")

  bad = writer.Outgoing("x", (2,), np.dtype(np.float32), fail)
  with pytest.raises(RuntimeError, match="the disk is gone"):
    writer.write_weights(tmp_path, [bad], "1GB")
  _assert_equal(formats.open_weights(tmp_path), tensors)
  assert [path.name for path in tmp_path.iterdir()] == [formats.SINGLE]


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, seed, kept):
  _write(tmp_path, _tensors(seed))
  path = tmp_path / formats.SINGLE
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(WeightFileError, match=r"model\.safetensors.* truncated"):
    formats.open_weights(tmp_path)


def test_a_truncated_file_names_the_tensor(tmp_path, seed):
  _write(tmp_path, _tensors(seed))
  path = tmp_path / formats.SINGLE
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(WeightFileError, match=r"'c\.half' ends at byte"):
    formats.open_weights(tmp_path)


def test_a_huge_header_is_refused_before_it_is_read(tmp_path):
  (tmp_path / formats.SINGLE).write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
  with pytest.raises(WeightFileError, match=f"header claims {1 << 60}"):
    formats.open_weights(tmp_path)


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
  (tmp_path / formats.SINGLE).write_bytes(_header(entry))
  with pytest.raises(WeightFileError, match=message):
    formats.open_weights(tmp_path)


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
  (tmp_path / formats.SINGLE).write_bytes(
    struct.pack("<Q", len(raw)) + raw + bytes(64)
  )
  with pytest.raises(WeightFileError, match="damaged header"):
    formats.open_weights(tmp_path)


def test_overlapping_tensors_are_refused(tmp_path):
  entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
  text = json.dumps(
    {"t": entry, "u": {**entry, "data_offsets": [4, 12]}}
  ).encode()
  (tmp_path / formats.SINGLE).write_bytes(
    struct.pack("<Q", len(text)) + text + bytes(64)
  )
  with pytest.raises(WeightFileError, match="'u' overlaps 't'"):
    formats.open_weights(tmp_path)


def test_a_missing_shard_names_the_file_and_a_tensor(tmp_path, seed):
  _write(tmp_path, _tensors(seed), 20)
  name = formats.shard_names(tmp_path / formats.INDEX)["b.bias"]
  (tmp_path / name).unlink()
  with pytest.raises(WeightFileError, match=rf"{name} is missing.*'b\.bias'"):
    formats.open_weights(tmp_path)


def test_a_shard_without_a_promised_tensor_names_both(tmp_path, seed):
  tensors = _tensors(seed)
  _write(tmp_path, tensors, 20)
  name = formats.shard_names(tmp_path / formats.INDEX)["b.bias"]
  safetensors.numpy.save_file({"other": tensors["b.bias"]}, tmp_path / name)
  with pytest.raises(WeightFileError, match=rf"{name} does not hold 'b\.bias'"):
    formats.open_weights(tmp_path)


@pytest.mark.parametrize(
  "shard", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "a\\b", 3]
)
def test_a_shard_stays_in_its_folder(tmp_path, shard):
  (tmp_path / formats.INDEX).write_text(
    json.dumps({"weight_map": {"t": shard}})
  )
  with pytest.raises(WeightFileError, match="no plain file name"):
    formats.open_weights(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', "\x00"])
def test_an_index_that_is_none_is_refused(tmp_path, text):
  (tmp_path / formats.INDEX).write_text(text)
  with pytest.raises(WeightFileError, match="no index of weights"):
    formats.open_weights(tmp_path)


def test_a_folder_without_weights_says_so(tmp_path):
  with pytest.raises(WeightFileError, match="holds no weights"):
    formats.open_weights(tmp_path)


@pytest.mark.parametrize(
  ("size", "bytes_"),
  [("10GB", 10**10), ("5 MiB", 5 << 20), ("7kb", 7000), ("9B", 9), (12, 12)],
)
def test_sizes(size, bytes_):
  assert writer.parse_size(size) == bytes_


@pytest.mark.parametrize("size", ["", "GB", "ten GB", "1.5GB"])
def test_a_size_that_is_none_is_refused(size):
  with pytest.raises(ValueError, match="max_shard_size"):
    writer.parse_size(size)
