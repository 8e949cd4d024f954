"""A prepared folder has the same bits, whatever happened on the way."""

import errno
import logging
import os
import pathlib
import resource
import threading

import pytest

from data import sources
from data.store import prepare, prepared, worker_processes

from .conftest import SMALL, bits, open_pairs


@pytest.fixture
def whole(source, make_encoding, tmp_path) -> dict[str, bytes]:
  """The bits of a folder that was prepared without an interruption."""
  pairs = prepare.prepare_set(
    source, make_encoding(), tmp_path / "whole", workers=1
  )
  # Without this fixture's own lock and the rest of its store.
  assert len(list(pairs.folder.iterdir())) == 6 + 3
  return bits(pairs.folder)


def finished(store: pathlib.Path) -> pathlib.Path:
  """The one folder of a store, beside which nothing but its lock is left."""
  folder, lock = sorted(store.iterdir())
  assert lock.name == f"{folder.name}.lock"
  return folder


@pytest.mark.parametrize("workers", [2, 3])
def test_processes_make_the_same_bits(
  source, make_encoding, whole, tmp_path, workers
):
  store = tmp_path / "store"
  prepare.prepare_set(source, make_encoding(), store, workers=workers)
  assert bits(finished(store)) == whole


class Killed(BaseException):
  """Stands for a process that ends at once."""


def _stop_at(monkeypatch, call: int, error: BaseException, name: str):
  """The `call`th call of `os.<name>` raises."""
  calls, real = [], getattr(os, name)

  def stopping(*args, **kwargs):
    calls.append(args)
    if len(calls) == call:
      raise error
    return real(*args, **kwargs)

  monkeypatch.setattr(os, name, stopping)


@pytest.mark.parametrize("name", ["fsync", "replace", "rename", "unlink"])
def test_stopped_anywhere_it_goes_on_to_the_same_bits(
  source, make_encoding, whole, tmp_path, name
):
  """At every call in turn, of all that change what is on the disk."""
  for call in range(1, 99):
    store = tmp_path / f"store{call}"
    with pytest.MonkeyPatch.context() as monkeypatch:
      _stop_at(monkeypatch, call, Killed(), name)
      try:
        prepare.prepare_set(source, make_encoding(), store, workers=1)
      except Killed:
        assert {p.suffix for p in store.iterdir()} == {".partial", ".lock"}
      else:
        break
    prepare.prepare_set(source, make_encoding(), store, workers=1)
    assert bits(finished(store)) == whole
  assert call > {"rename": 1, "unlink": 6}.get(name, 15)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_full_disk_is_an_error_that_names_the_file(
  source, make_encoding, whole, tmp_path, name
):
  full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  named = set()
  for call in range(1, 99):
    store = tmp_path / f"store{call}"
    with pytest.MonkeyPatch.context() as monkeypatch:
      _stop_at(monkeypatch, call, full, name)
      try:
        prepare.prepare_set(source, make_encoding(), store, workers=1)
      except OSError as error:
        (partial,) = store.glob("*.partial")
        assert "No space left" in str(error)
        if "make room there" in str(error):
          path = pathlib.Path(str(error).partition(" cannot be written")[0])
          assert path.parent == partial and not path.exists()
          named.add(path.suffix)
      else:
        break
    prepare.prepare_set(source, make_encoding(), store, workers=1)
    assert bits(finished(store)) == whole
  assert named == {".array_record", ".part", ".npy", ".json"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_may_not_grow_is_an_error_that_names_it(
  source, make_encoding, whole, tmp_path, workers
):
  store = tmp_path / "store"
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  sizes = {name: len(file) for name, file in whole.items()}
  # Room for everything but the shards: they fail first.
  resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
  try:
    with pytest.raises(OSError, match=r"File too large.*make room") as caught:
      prepare.prepare_set(source, make_encoding(), store, workers=workers)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert min(sizes[n] for n in sizes if n.startswith("shard")) > 30_000
  (partial,) = store.glob("*.partial")
  assert str(caught.value).startswith(f"{partial}/shard-00000-of-00006.arr")
  assert not list(partial.glob("*.array_record"))
  prepare.prepare_set(source, make_encoding(), store, workers=1)
  assert bits(finished(store)) == whole


def test_damage_before_the_end_is_made_anew(
  source, make_encoding, whole, tmp_path, count
):
  """What an interrupted run has left is checked, not believed."""
  store = tmp_path / "store"
  with pytest.MonkeyPatch.context() as monkeypatch:
    # The tables come after six shards and six parts.
    _stop_at(monkeypatch, 13, Killed(), "replace")
    with pytest.raises(Killed):
      prepare.prepare_set(source, make_encoding(), store, workers=1)
  (partial,) = store.glob("*.partial")
  files = sorted(partial.glob("shard-*"))
  assert len(files) == 12
  for number, path in enumerate(files):
    # Of shards in turn the shard, its part, and both.
    if (number // 2) % 3 not in (number % 2, 2):
      continue
    damaged = bytearray(path.read_bytes())
    damaged[50] ^= 255
    path.write_bytes(damaged if number < 6 else damaged[: number * 40])
  (partial / "shard-00000-of-00099.part").write_bytes(b"of another version")
  prepare.prepare_set(source, make_encoding(), store, workers=1)
  assert bits(finished(store)) == whole


def test_a_second_run_waits_for_the_first(
  source, make_encoding, whole, tmp_path, monkeypatch, caplog
):
  store = tmp_path / "store"
  begun, go_on, made, real = (
    threading.Event(),
    threading.Event(),
    [],
    worker_processes.in_order,
  )

  def slow(*args):
    made.append(args)
    begun.set()
    assert go_on.wait(60)
    return real(*args)

  monkeypatch.setattr(worker_processes, "in_order", slow)
  results = []

  def ask():
    pairs = prepare.prepare_set(source, make_encoding(), store, workers=1)
    results.append(pairs.fingerprint)

  first, second = threading.Thread(target=ask), threading.Thread(target=ask)
  with caplog.at_level(logging.INFO, logger="absl"):
    first.start()
    assert begun.wait(60)
    second.start()
    second.join(0.5)
    assert second.is_alive()
    go_on.set()
    first.join(60)
    second.join(60)
  said = f"{source.name}: waiting for process {os.getpid()} of "
  assert said in caplog.text
  assert len(made) == 1 and len(results) == 2 and len(set(results)) == 1
  assert bits(finished(store)) == whole


def test_a_file_system_without_locks_is_refused(
  source, make_encoding, tmp_path, monkeypatch
):
  def none(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr("fcntl.flock", none)
  with pytest.raises(OSError, match=r"\.lock: this file system has no locks"):
    prepare.prepare_set(source, make_encoding(), tmp_path, workers=1)


def test_a_finished_set_is_read_where_nothing_may_be_written(
  source, make_encoding, whole, tmp_path, monkeypatch
):
  store = tmp_path / "whole"
  (store / f"{finished(store).name}.lock").unlink()
  monkeypatch.setattr("fcntl.flock", None)
  monkeypatch.setattr(worker_processes, "in_order", None)
  prepare.prepare_set(source, make_encoding(), store)
  assert len(list(store.iterdir())) == 1


def test_another_source_or_tokenizer_is_noticed(
  write_jsonl, make_encoding, bpe, tmp_path, caplog
):
  def made(size, **changes):
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="absl"):
      pairs = prepare.prepare_set(
        open_pairs(write_jsonl, size),
        make_encoding(**changes),
        tmp_path / "store",
        workers=1,
      )
    return pairs.folder, caplog.text

  first, said = made(9)
  assert "anew" not in said
  before = bits(first)
  second, said = made(10)
  assert f"of another text in {first}; that stays" in said
  third, said = made(10, source_tokenizer=bpe)
  assert f"another source tokenizer in {second}; that" in said
  assert f"another text and source tokenizer in {first}; that" in said
  # A maximum length is another's business.
  fourth, _ = made(10, max_source_length=9)
  folders = {first, second, third, fourth}
  assert len(folders) == 4 and bits(first) == before
  again, said = made(9)
  assert again == first and not said
  for folder in folders:
    prepared.verify(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_record_is_named_and_leaves_nothing(
  write_jsonl, make_encoding, tmp_path, workers
):
  good, bad = {"source": "a", "target": "b"}, {"source": " ", "target": "b"}
  path = write_jsonl(*[good] * 9, bad, *[good] * 9, bad)
  source = sources.open_source(f"jsonl:{path}", fields=("source", "target"))
  store = tmp_path / "store"
  with pytest.raises(ValueError, match=r"line 10: .*'source' is blank"):
    prepare.prepare_set(source, make_encoding(), store, workers=workers)
  assert [path.suffix for path in store.iterdir()] == [".lock"]
  encoding = make_encoding(on_bad_record="skip")
  pairs = prepare.prepare_set(source, encoding, store, workers=1)
  assert pairs.counts.empty_sources == 2 and len(pairs) == 18
  assert pairs.records[-1] == 18


def test_a_source_that_cannot_be_read_is_not_a_full_disk(
  source, make_encoding, whole, tmp_path, monkeypatch
):
  real = os.pread

  def fails(descriptor, size, offset):
    if offset > 500:
      raise OSError(errno.EIO, os.strerror(errno.EIO))
    return real(descriptor, size, offset)

  store = tmp_path / "store"
  with monkeypatch.context() as patch:
    patch.setattr(os, "pread", fails)
    with pytest.raises(prepare.Unreadable, match="Input/output error") as no:
      prepare.prepare_set(source, make_encoding(), store, workers=1)
  assert str(no.value).startswith(source.name)
  assert len(list(store.glob("*.partial/*.part"))) > 1
  prepare.prepare_set(source, make_encoding(), store, workers=1)
  assert bits(finished(store)) == whole


def test_shards_are_few_however_many_records():
  sizes = {n: prepare._shard_records(n) for n in (1, 1000, 1025, 10**6)}
  assert sizes == {1: SMALL, 1000: SMALL, 1025: 2 * SMALL, 10**6: 4096}
