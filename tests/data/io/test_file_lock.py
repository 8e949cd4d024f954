"""Locks on files: taken by one at a time, who is named to the others."""

import errno
import fcntl
import os

import pytest

from data.io import file_lock


def test_a_lock_that_is_let_go_meanwhile_is_taken(tmp_path, monkeypatch):
  """Its file was opened, and then removed by who had it."""
  path, flock, removed = tmp_path / "lock", fcntl.flock, []

  def remove_first(file, how):
    if not removed:
      removed.append(path.unlink())
    flock(file, how)

  monkeypatch.setattr(fcntl, "flock", remove_first)
  with file_lock.exclusive(path):
    assert path.read_text().startswith("process ")
    with pytest.raises(file_lock.LockTaken), file_lock.exclusive(path):
      pass


def test_who_waits_is_told_who_has_the_lock(tmp_path, monkeypatch):
  path, said = tmp_path / "lock", []
  monkeypatch.setattr(file_lock, "_POLL_SECONDS", 0.0)
  with open(path, "w") as file:
    file.write("process 7 of a host")
    file.flush()
    fcntl.flock(file, fcntl.LOCK_EX)

    def waiting(holder):
      said.append(holder)
      fcntl.flock(file, fcntl.LOCK_UN)
      return f"waiting for {holder}"

    with file_lock.locked(path, waiting):
      assert path.read_text().startswith(f"process {os.getpid()} of ")
      with pytest.raises(file_lock.LockTaken, match=f"process {os.getpid()} "):
        file_lock.exclusive(path).__enter__()
  assert said == ["process 7 of a host"]
  # It stays, and nobody has it.
  with file_lock.exclusive(path):
    pass
  assert not path.exists()


def test_a_disk_without_locks_is_no_lock_of_anothers(tmp_path, monkeypatch):
  def refuse(file, how):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(fcntl, "flock", refuse)
  path = tmp_path / "lock"
  with pytest.raises(file_lock.NoLocks, match=f"{path}: this file system has"):
    file_lock.exclusive(path).__enter__()
  with pytest.raises(
    OSError, match=r"no locks .*; set data\.store to a folder"
  ):
    file_lock.locked(path, str).__enter__()
