"""The output of a prediction: its lock, where there are locks."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from train.errors import Refusal
from train.modes import prediction_file


def opened(path, rows=2):
  file = prediction_file.Output(
    path, {"weights": "w"}, prediction_file.Fields()
  )
  done = file.open(overwrite=False, total=rows, given=[{}] * rows)
  return file, done


def test_a_second_command_is_refused(tmp_path):
  first, _ = opened(tmp_path / "out.jsonl")
  with pytest.raises(Refusal, match="written by another command"):
    opened(tmp_path / "out.jsonl")
  first.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_it_goes_on_with_a_warning(
  number, tmp_path, monkeypatch, caplog
):
  def refuse(file, how):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, "flock", refuse)
  path = tmp_path / "out.jsonl"
  with caplog.at_level("WARNING", logger="absl"):
    first, _ = opened(path)
  [message] = caplog.messages
  assert message.startswith(f"{path}.partial: this file system has no locks (")
  assert message.endswith(f"from --output={path}; start none")
  first.append([{"prediction": "a", "score": 0.5}])
  first.close()
  second, done = opened(path)
  assert done == 1
  second.append([{"prediction": "b", "score": 0.5}])
  second.finish()
  assert len(path.read_text().splitlines()) == 2


def test_a_folder_that_cannot_be_made_is_refused():
  with pytest.raises(
    Refusal, match=r"--output=/proc/no/out\.jsonl: /proc/no cannot be"
  ):
    opened(Path("/proc/no/out.jsonl"))
