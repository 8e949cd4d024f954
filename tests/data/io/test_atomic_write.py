"""A file that is written is the old one or the new one, whole."""

import pytest

from data.io import atomic_write


def test_an_atomic_write_leaves_the_old_text_or_the_new(tmp_path):
  path = tmp_path / "manifest.json"
  atomic_write.write_text(path, "old")
  with pytest.raises(UnicodeEncodeError):
    atomic_write.write_text(path, "\ud800")
  assert path.read_text() == "old"
  atomic_write.write_text(path, "new")
  assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]
