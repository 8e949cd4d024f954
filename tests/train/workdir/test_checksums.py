"""Checksums: whatever happens to a file has a reason that names it."""

import json
import pathlib

import numpy as np
import pytest

from train.workdir import checksums


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  """A committed step of two processes, before and after its seal."""
  names = [
    "meta/metadata",
    "params/manifest.ocdbt",
    "params/ocdbt.process_0/d/a",
    "params/ocdbt.process_1/d/b",
  ]
  for i, name in enumerate(names):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.random.default_rng(i).bytes(1000))
  checksums.write(tmp_path, 1, 2)
  assert checksums.missing_manifest(tmp_path, 2) == "checksums-0-of-2.json"
  checksums.write(tmp_path, 0, 2)
  assert checksums.missing_manifest(tmp_path, 2) is None
  (tmp_path / "_CHECKPOINT_METADATA").write_text('{"item_handlers": {}}')
  (tmp_path / "commit_success.txt").write_text("committed")
  return tmp_path


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob("*") if path.is_file())


def test_each_process_answers_for_its_own_files(folder):
  files = [
    json.loads((folder / f"checksums-{p}-of-2.json").read_text())["files"]
    for p in range(2)
  ]
  assert list(files[1]) == ["params/ocdbt.process_1/d/b"]
  assert len(files[0]) == 3


@pytest.mark.parametrize("sealed", [False, True])
def test_a_whole_step_has_no_problem(folder, sealed):
  if sealed:
    checksums.seal(folder)
    before = _files(folder)
    checksums.seal(folder)
    assert _files(folder) == before
  for contents in (True, False):
    assert checksums.find_problem(folder, contents=contents) is None


def test_every_bit_of_every_file_counts(folder, seed):
  checksums.seal(folder)
  rng = np.random.default_rng(seed)
  for path in _files(folder):
    data = path.read_bytes()
    name = path.relative_to(folder).as_posix()
    for _ in range(20):
      flipped = bytearray(data)
      flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
      path.write_bytes(flipped)
      problem = checksums.find_problem(folder, contents=True)
      assert problem is not None and path.name in problem, (name, problem)
    path.write_bytes(data[:-1])
    assert path.name in checksums.find_problem(folder, contents=False)
    path.write_bytes(data)
  assert checksums.find_problem(folder, contents=True) is None


def test_a_missing_file_is_named(folder):
  for path in _files(folder):
    data = path.read_bytes()
    path.unlink()
    problem = checksums.find_problem(folder, contents=False)
    assert problem == f"{path.relative_to(folder)}: the file is missing"
    path.write_bytes(data)


def test_the_last_two_files_are_looked_at_before_the_seal(folder):
  (folder / "_CHECKPOINT_METADATA").write_text('{"item_handlers')
  problem = checksums.find_problem(folder, contents=True)
  assert problem.startswith("_CHECKPOINT_METADATA: cannot be read")


def test_shares_of_the_reading_cover_all(folder):
  """A large file is read by the process whose share it is in."""
  large = folder / "params/ocdbt.process_0/d/a"
  data = bytearray((1 << 16) + 1)
  large.write_bytes(data)
  checksums.write(folder, 0, 2)
  data[5] = 1
  large.write_bytes(data)
  assert checksums.find_problem(folder, contents=False) is None
  found = [
    checksums.find_problem(folder, contents=True, part=part, parts=3)
    for part in range(3)
  ]
  [problem] = [problem for problem in found if problem]
  assert problem.startswith("params/ocdbt.process_0/d/a: the contents differ")
  large.write_bytes(data[:-1])
  problem = checksums.find_problem(folder, contents=False)
  assert (
    problem == "params/ocdbt.process_0/d/a: 65536 bytes, 65537 were written"
  )


@pytest.mark.parametrize(
  "raw", [b"\xff" * 4000, b'["' + b"secret " * 1000 + b'"]', b"{}", b"3"]
)
def test_a_manifest_that_is_none_is_not_printed(folder, raw):
  name = min(path.name for path in folder.glob("checksums-0-*"))
  (folder / name).write_bytes(raw)
  problem = checksums.find_problem(folder, contents=True)
  assert problem is not None and problem.startswith(f"{name}: no manifest")
  assert len(problem) < 300
