"""Checksums of a checkpoint's files: written by their owners, checked on load.

A step's folder holds one manifest a process, `checksums-<p>-of-<n>.json`: the
size and the SHA-256 of every file that process p wrote. They are written while
the folder still has its temporary name, so the rename that makes a step
appear makes its checksums appear with it. Two files are finished by the
checkpointer during that very rename: `checksums-commit.json` holds theirs, and
a step killed before it was written is good all the same, for neither is read
for a value.
"""

import concurrent.futures
import hashlib
import json
import pathlib
import re
from typing import Any

from data.io.atomic_write import sync, write_text
from data.io.digests import file_digest
from data.io.error_text import DAMAGE, fault

_LATE = ("_CHECKPOINT_METADATA", "commit_success.txt")
_SEAL = "checksums-commit.json"
_MANIFEST = re.compile(r"checksums-(\d+)-of-(\d+)\.json")
# Array data lie in one folder a process; the rest is the first process's.
_PROCESS_FOLDER = re.compile(r"ocdbt\.process_(\d+)")
# An item's folder loses this when the first process finishes it.
_UNFINISHED = re.compile(r"\.orbax-checkpoint-tmp[^/]*")
# A cheap check reads the contents of files up to this size, in bytes.
_SMALL = 1 << 16
_THREADS = 4

Entry = dict[str, Any]


def write(folder: pathlib.Path, process: int, processes: int) -> None:
  """Writes process `process`'s manifest of the files in `folder`.

  Call it when those files are closed; the first process's are closed last.
  """
  names = (
    path.relative_to(folder).as_posix()
    for path in folder.rglob("*")
    if path.is_file() and not path.name.startswith("checksums-")
  )
  own = [
    name for name in names if name not in _LATE and _owner(name) == process
  ]
  _write_manifest(_manifest_path(folder, process, processes), folder, own)


def seal(folder: pathlib.Path) -> None:
  """Adds the checksums of a committed step's last two files."""
  path = folder / _SEAL
  if folder.is_dir() and not path.exists():
    _write_manifest(path, folder, list(_LATE))


def check_complete(folder: pathlib.Path, processes: int) -> None:
  """Raises RuntimeError where a process has not written its manifest."""
  missing = missing_manifest(folder, processes)
  if missing is not None:
    raise RuntimeError(f"{folder / missing} was not written by its process")


def missing_manifest(folder: pathlib.Path, processes: int) -> str | None:
  """The name of a manifest that is not there; None: all are."""
  paths = (_manifest_path(folder, i, processes) for i in range(processes))
  return next((path.name for path in paths if not path.is_file()), None)


def find_problem(
  folder: pathlib.Path, *, contents: bool, part: int = 0, parts: int = 1
) -> str | None:
  """What is wrong with a step's folder: the file and the reason, or None.

  With `contents` every byte is read, by several processes together: this one
  reads the `part`-th of `parts` shares. Without, sizes are compared, and the
  contents of small files alone.
  """
  expected = _expected(folder)
  if isinstance(expected, str):
    return expected

  def check(item: tuple[int, str]) -> str | None:
    index, name = item
    entry = expected[name]
    read = index % parts == part if contents else entry["bytes"] <= _SMALL
    return _file_problem(folder, name, entry, read)

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
    problems = list(threads.map(check, enumerate(sorted(expected))))
  return next((problem for problem in problems if problem), None)


def _manifest_path(
  folder: pathlib.Path, process: int, processes: int
) -> pathlib.Path:
  return folder / f"checksums-{process}-of-{processes}.json"


def _owner(name: str) -> int:
  match = _PROCESS_FOLDER.search(name)
  return int(match.group(1)) if match else 0


def _digest(files: dict[str, Entry]) -> str:
  """A manifest's own checksum, whatever its spaces."""
  text = json.dumps(files, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _write_manifest(
  path: pathlib.Path, folder: pathlib.Path, names: list[str]
) -> None:
  def entry(name: str) -> Entry:
    file = folder / name
    return {"bytes": file.stat().st_size, "sha256": file_digest(file)}

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
    entries = list(threads.map(entry, names))
  final = [_UNFINISHED.sub("", name) for name in names]
  files = dict(zip(final, entries, strict=True))
  manifest = {"files": files, "sha256": _digest(files)}
  write_text(path, json.dumps(manifest, indent=1))
  sync(folder)


def _expected(folder: pathlib.Path) -> dict[str, Entry] | str:
  """Name -> size and checksum of all files; or what keeps from knowing."""
  matches = [
    _MANIFEST.fullmatch(path.name) for path in folder.glob("checksums-*")
  ]
  processes = next((int(match.group(2)) for match in matches if match), 1)
  missing = missing_manifest(folder, processes)
  if missing is not None:
    return f"{missing}: the file is missing"
  paths = [_manifest_path(folder, i, processes) for i in range(processes)]
  sealed = (folder / _SEAL).is_file()
  expected: dict[str, Entry] = {}
  for path in paths + [folder / _SEAL] * sealed:
    try:
      manifest = json.loads(path.read_bytes())
      files, digest = manifest["files"], manifest["sha256"]
    except DAMAGE as error:
      return f"{path.name}: no manifest of checksums ({fault(error)})"
    if _digest(files) != digest:
      return f"{path.name}: the contents differ from those written (SHA-256)"
    expected.update(files)
  return expected if sealed else _unsealed_problem(folder) or expected


def _unsealed_problem(folder: pathlib.Path) -> str | None:
  """What can be said of the last two files without their checksums."""
  for name in _LATE:
    if not (folder / name).is_file():
      return f"{name}: the file is missing"
    if (folder / name).stat().st_size == 0:
      return f"{name}: the file is empty"
  try:
    json.loads((folder / _LATE[0]).read_bytes())
  except DAMAGE as error:
    return f"{_LATE[0]}: cannot be read ({fault(error)})"
  return None


def _file_problem(
  folder: pathlib.Path, name: str, entry: Entry, read: bool
) -> str | None:
  path = folder / name
  if not path.is_file():
    return f"{name}: the file is missing"
  size = path.stat().st_size
  if size != entry["bytes"]:
    return f"{name}: {size} bytes, {entry['bytes']} were written"
  if read and file_digest(path) != entry["sha256"]:
    return f"{name}: the contents differ from those written (SHA-256)"
  return None
