"""What a run writes into its folder is read back, or its damage is named."""

import json

import pytest

from train.errors import Refusal
from train.workdir import json_files


def test_what_was_written_is_read(tmp_path):
  path = tmp_path / "new/folder/values.json"
  values = {"a": [1, None], "é": "\u2028"}
  json_files.write_json(path, values)
  assert json_files.read_json(path, "a", "é") == values
  with pytest.raises(TypeError):
    json_files.write_json(path, {"a": object()})
  assert json.loads(path.read_text("utf-8")) == values


@pytest.mark.parametrize(
  ("raw", "fault"),
  [
    (b"[1]", "it holds a list, no object"),
    (b'{"b": 1}', "'a'"),
    (b'{"a": 1', "Expecting"),
    (b'{"a": "\xff"}', "no UTF-8 at byte 7"),
  ],
)
def test_damage_is_named_with_its_file(tmp_path, raw, fault):
  path = tmp_path / "values.json"
  path.write_bytes(raw)
  with pytest.raises(Refusal, match=r"is damaged \(.*: restore it") as caught:
    json_files.read_json(path, "a")
  assert str(caught.value).startswith(f"{path} ")
  assert fault in str(caught.value)
