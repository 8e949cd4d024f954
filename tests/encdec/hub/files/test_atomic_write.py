"""A file has its name only when it is complete."""

import os

import pytest

from encdec.hub.files.atomic_write import PARTIAL, partial_files, write_text


def test_an_error_of_the_disk_leaves_the_old_text(tmp_path, monkeypatch):
  path = tmp_path / "config.json"
  write_text(path, "old\n")

  def fail(descriptor):
    raise OSError("the disk is broken")

  with monkeypatch.context() as patch:
    patch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is broken"):
      write_text(path, "new\n")
  assert path.read_text() == "old\n" and list(tmp_path.iterdir()) == [path]
  write_text(path, "new\n")
  assert path.read_text() == "new\n" and list(tmp_path.iterdir()) == [path]


def test_only_renamed_files_stay(tmp_path):
  paths = [tmp_path / "one", tmp_path / "two"]
  with partial_files(paths) as partial:
    for path in partial:
      assert PARTIAL in path.name
      path.write_text("text")
    os.replace(partial[0], paths[0])
  assert list(tmp_path.iterdir()) == paths[:1]
