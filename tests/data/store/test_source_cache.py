"""Files that are as they were are not read again."""

import json
import os
import pickle

import pytest

from data import sources
from data.store import source_cache
from data.store.source_cache import Remembered, open_remembered

FIELDS = ("source", "target")


@pytest.fixture
def store(tmp_path):
  """A folder; nothing is known in this process either."""
  source_cache._opened.cache_clear()
  (tmp_path / "store").mkdir()
  return tmp_path / "store"


def _forget():
  source_cache._opened.cache_clear()


def _open(uri, store, **changes):
  asked = {"fields": FIELDS, "on_bad_record": "skip"} | changes
  return open_remembered(uri, folder=store, **asked)


def _write(path, *texts):
  lines = [json.dumps({"source": t, "target": t}) for t in texts]
  path.write_text("\n".join([*lines, "no json", ""]))
  return f"jsonl:{path}"


@pytest.mark.parametrize("split", ["", "@all[1:]"])
def test_a_remembered_source_is_the_source(tmp_path, store, split):
  uri = _write(tmp_path / "a.jsonl", "one", "two", "three") + split
  first = _open(uri, store)
  _forget()
  again = _open(uri, store)
  assert [isinstance(s.base, Remembered) for s in (first, again)] == [0, 1]
  for source in (again, pickle.loads(pickle.dumps(again))):
    assert isinstance(source, sources.Source)
    for name in ("name", "fingerprint", "skipped"):
      assert getattr(source, name) == getattr(first, name)
    assert len(source) == len(first)
    assert [source[i] for i in range(len(source))] == [
      first[i] for i in range(len(first))
    ]
    assert source.locate(0) == first.locate(0)


def test_nothing_is_read_of_what_is_remembered(tmp_path, store, monkeypatch):
  (tmp_path / "s").write_text("a\nb\n")
  (tmp_path / "t").write_text("c\nd\n")
  uri = f"text:{tmp_path}/s::{tmp_path}/t"
  first = _open(uri, store)
  # Within a process a source is opened once.
  assert _open(uri, tmp_path / "none").base is first.base
  _forget()
  monkeypatch.setattr(source_cache, "open_whole", None)
  assert (len(_open(uri, store)), _open(uri, store).fingerprint) == (
    2,
    first.fingerprint,
  )


@pytest.mark.parametrize("changed", ["text", "time", "fields", "file"])
def test_what_has_changed_is_opened(tmp_path, store, changed):
  path = tmp_path / "a.jsonl"
  uri = f"jsonl:{tmp_path}/*.jsonl"
  _write(path, "one", "two")
  first = _open(uri, store)
  _forget()
  fields = FIELDS
  if changed == "text":
    _write(path, "one", "two", "three")
  elif changed == "time":
    os.utime(path, ns=(1, 1))
  elif changed == "fields":
    fields = FIELDS[:1]
  else:
    _write(tmp_path / "b.jsonl", "three")
  again = _open(uri, store, fields=fields)
  assert not isinstance(again.base, Remembered)
  assert (again.fingerprint != first.fingerprint) == (
    changed in ("text", "file")
  )


def test_files_that_hide_a_change_are_found_out(tmp_path, store):
  path = tmp_path / "a.jsonl"
  uri = _write(path, "one", "two")
  os.utime(path, ns=(1, 1))
  _open(uri, store)
  _forget()
  _write(path, "one", "six")
  os.utime(path, ns=(1, 1))
  source = _open(uri, store)
  with pytest.raises(ValueError, match=r"a\.jsonl@all: its files have changed"):
    source[0]


@pytest.mark.parametrize(
  "text", ["", "[]", '{"files": 3}', '{"files": [], "found": [1, 2]}']
)
def test_a_damaged_memory_is_none(tmp_path, store, text):
  uri = _write(tmp_path / "a.jsonl", "one")
  first = _open(uri, store)
  (path,) = store.iterdir()
  whole = path.read_text()
  path.write_text(text or whole[:20])
  _forget()
  assert _open(uri, store).fingerprint == first.fingerprint
  assert path.read_text() == whole


def test_what_is_no_file_is_opened(store):
  assert not isinstance(_open("dates@train[:3]", store).base, Remembered)
  assert not isinstance(_open("dates@train[:3]", store).base, Remembered)
  assert not list(store.iterdir())


def test_without_a_folder_none_is_made(tmp_path, store):
  uri = _write(tmp_path / "a.jsonl", "one")
  _open(uri, tmp_path / "no")
  assert not (tmp_path / "no").exists()


def test_a_folder_that_cannot_be_written_is_no_fault(
  tmp_path, store, monkeypatch
):
  def full(path):
    raise OSError("full")

  monkeypatch.setattr(source_cache.atomic_write, "sync", full)
  assert len(_open(_write(tmp_path / "a.jsonl", "one"), store)) == 1
  assert not list(store.iterdir())
