"""What an error says of a file: its name, the fault, few of its words."""

import json
import re
import struct

import flax.serialization
import numpy as np
import pytest
import safetensors.numpy
import torch

from encdec import FlaxEncoderDecoderModel
from encdec.hub import HubError, WeightFileError, load_side_config
from encdec.hub.files import weight_files

# Of a message without the file's path.
MOST = 500
LONG = "secret " * 1000


def _refusal(folder, kind=WeightFileError):
  """The error's message without the folder's name; "" where there is none."""
  try:
    tensors = weight_files.open_weights(folder)
    for name in tensors:
      tensors[name]
  except kind as error:
    message = str(error)
    assert str(folder) in message, message
    rest = message.replace(str(folder), "")
    assert len(rest) < MOST and "\n" not in rest, message
    return rest
  return ""


@pytest.fixture
def whole(tmp_path):
  """A safetensors file's path and bytes, and the length of its header."""
  rng = np.random.default_rng(0)
  tensors = {
    f"encoder.layer.{n}.attention.self.query.weight": rng.normal(size=(2, 3))
    for n in range(20)
  }
  path = tmp_path / weight_files.SINGLE
  safetensors.numpy.save_file(tensors, path)
  raw = path.read_bytes()
  (length,) = struct.unpack("<Q", raw[:8])
  assert length > 2 * MOST
  return path, raw, length


@pytest.mark.sample(1)
@pytest.mark.parametrize("flipped", [0x80, 0x01, 0x10, 0xFF])
def test_no_flipped_byte_prints_the_header(whole, flipped):
  path, raw, length = whole
  refused = 0
  for place in range(8 + length):
    damaged = bytearray(raw)
    damaged[place] ^= flipped
    path.write_bytes(damaged)
    message = _refusal(path.parent)
    refused += bool(message)
    if flipped == 0x80 and place >= 8:
      # A byte of UTF-8 that stands alone: the fault and its place are told.
      assert re.search(rf"no UTF-8 at byte {place}\b", message), message
  assert refused > length // 4


def test_the_place_of_what_is_no_json_is_told(whole):
  path, raw, _ = whole
  place = raw.index(b"query")
  path.write_bytes(raw[:place] + b'"' + raw[place + 1 :])
  assert f"no JSON at byte {place + 1}: " in _refusal(path.parent)


def _index(folder, weight_map):
  text = json.dumps({"weight_map": weight_map})
  (folder / weight_files.INDEX).write_text(text)


def _header(folder, header):
  text = json.dumps(header).encode()
  raw = struct.pack("<Q", len(text)) + text
  (folder / weight_files.SINGLE).write_bytes(raw)


def _pickled(folder, state, **options):
  torch.save(state, folder / "pytorch_model.bin", **options)


def _tree(folder, tree):
  raw = flax.serialization.msgpack_serialize(tree)
  (folder / "flax_model.msgpack").write_bytes(raw)


FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
  "a tensor's name": lambda f: _header(f, {LONG: FLOATS}),
  "a dtype": lambda f: _header(f, {"a": FLOATS | {"dtype": LONG}}),
  "dtypes": lambda f: _header(f, {"a": FLOATS | {"dtype": [LONG]}}),
  "a shape": lambda f: _header(f, {"a": FLOATS | {"shape": [LONG]}}),
  "axes": lambda f: _header(f, {"a": FLOATS | {"shape": [2**62] * 64}}),
  "offsets": lambda f: _header(f, {"a": FLOATS | {"data_offsets": [LONG, 1]}}),
  "digits": lambda f: _header(f, {"a": FLOATS | {"shape": [10**4000]}}),
  "overlap": lambda f: _header(f, {LONG: FLOATS, f"{LONG}2": FLOATS}),
  "metadata": lambda f: _header(f, {"__metadata__": LONG}),
  "no header": lambda f: _header(f, LONG),
  "an index's file": lambda f: _index(f, {"a": LONG}),
  "an index's plain file": lambda f: _index(f, {"a": "x" * 5000}),
  "an index's letters": lambda f: _index(f, {"a": "\u00e4" * 200}),
  "an index's tensor": lambda f: _index(f, {LONG: "model-1.safetensors"}),
  "no index": lambda f: (f / weight_files.INDEX).write_text(json.dumps([LONG])),
  "no JSON": lambda f: (f / weight_files.INDEX).write_text(LONG),
  "no UTF-8": lambda f: (f / weight_files.INDEX).write_bytes(
    LONG.encode("utf-16")
  ),
  "one level down": lambda f: _pickled(f, {LONG: {"a": torch.ones(1)}}),
  "another pickle": lambda f: _pickled(
    f, {LONG: torch.ones(1)}, pickle_protocol=4
  ),
  "a map's key": lambda f: _tree(f, {"a" * 900: {"b" * 900: 1}}),
  "a map's value": lambda f: _tree(f, {"a": LONG}),
}


@pytest.mark.parametrize("write", HOSTILE.values(), ids=HOSTILE)
def test_no_word_of_a_file_is_printed_without_a_bound(tmp_path, write):
  write(tmp_path)
  message = _refusal(tmp_path)
  assert message.count("secret") < 40


@pytest.mark.parametrize(
  "text", [LONG, LONG.encode("utf-16"), "[" * 5000, json.dumps([LONG])]
)
def test_a_config_that_is_none_is_named(tmp_path, text):
  path = tmp_path / "config.json"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(HubError) as caught:
    load_side_config(str(tmp_path))
  message = str(caught.value)
  assert message.startswith(str(path)) and len(message) < MOST + len(str(path))


VALUES = [LONG, [LONG], {"a": LONG}, 10**4000, -1, None, "", True]


@pytest.mark.sample(1)
@pytest.mark.parametrize("side", [None, "encoder", "decoder"])
@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v)[:9])
def test_no_value_of_a_config_is_printed_without_a_bound(
  tiny, tmp_path, value, side
):
  tiny.save_pretrained(tmp_path)
  path = tmp_path / "config.json"
  good = json.loads(path.read_text())
  refused = 0
  for key in good if side is None else good[side]:
    values = json.loads(json.dumps(good))
    (values if side is None else values[side])[key] = value
    path.write_text(json.dumps(values))
    try:
      FlaxEncoderDecoderModel.from_pretrained(tmp_path, _do_init=False)
    except (ValueError, TypeError, OSError) as error:
      refused += 1
      assert len(str(error)) < 2 * MOST, key
  assert refused
