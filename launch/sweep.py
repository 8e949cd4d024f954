"""A sweep: the members of a config's get_hyper(), one after another.

  python -m launch.sweep --config=configs/dates.py --workdir=runs/sweep
  python -m launch.sweep --config=configs/dates.py --workdir=runs/sweep \
    --dry_run                                     # prints the command lines
  python -m launch.sweep --config=configs/dates.py:smoke --workdir=runs/sweep \
    -- --config.train.keep_last=1                 # flags for every member

Each member runs main.py in a folder of its own, named after its overrides.
`results.jsonl` holds a line for each member that has ended, at its best
checkpoint. The same command again goes on where the last one stopped:
finished members are not run again, the interrupted one resumes, failed ones
are tried once more.
"""

from launch import early

if __name__ == "__main__":
  early.watch()

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from launch import experiment, local, program
from launch.experiment import Refusal, suggest

CONFIG = flags.DEFINE_string("config", None, "A file of configs/, :variant.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the command lines.")

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a sweep.

  name: its folder's, which depends on its overrides alone.
  flags: of main.py, the folder aside.
  fingerprint: of its flags and of every value of the config.
  """

  name: str
  flags: tuple[str, ...]
  fingerprint: str

  def command(self, workdir: Path) -> list[str]:
    folder = f"--workdir={workdir / self.name}"
    return [sys.executable, str(local.MAIN), *self.flags, folder]


def members(config: str, extra: Sequence[str] = ()) -> list[Member]:
  """The members of a config's get_hyper(), checked against its keys.

  Args:
    config: path of a config file, with or without :variant.
    extra: more flags of main.py, for every member.

  Raises:
    Refusal: no such file, no get_hyper() in it, or a wrong member.
  """
  path = config.partition(":")[0]
  values, hyper = experiment.read(config)
  for flag in extra:
    key = re.match(r"--?(?:no)?config\.([\w.]+)", flag)
    if key and key[1] not in values:
      near = suggest(key[1], [*values])
      raise Refusal(f"{flag}: the config has no key {key[1]!r}{near}")
  by_name: dict[str, Member] = {}
  for number, overrides in enumerate(hyper):
    unknown = [key for key in overrides if key not in values]
    if unknown:
      raise Refusal(
        f"{path}: get_hyper() member {number} sets {unknown[0]!r}, which is "
        f"no key of the config{suggest(unknown[0], [*values])}"
      )
    name = member_name(overrides)
    if name in by_name:
      raise Refusal(f"{path}: get_hyper() has the member {name} twice")
    settings = [f"--config.{key}={value}" for key, value in overrides.items()]
    flags_of_member = (f"--config={config}", *settings, *extra)
    digest = _digest(json.dumps([values, flags_of_member]))
    by_name[name] = Member(name, flags_of_member, digest)
  if not by_name:
    raise Refusal(f"{path}: get_hyper() returns no members")
  return list(by_name.values())


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def member_name(overrides: Mapping[str, Any]) -> str:
  """A folder's name that depends on the overrides alone, in their order."""
  pairs = [f"{key}={value}" for key, value in overrides.items()]
  text = ",".join(pairs) or "base"
  name = re.sub(r"[^\w.,=+-]+", "_", text)
  if name == text and len(name) <= 100:
    return name
  # Different values must not meet in one folder.
  return f"{name[:100]}-{_digest(text)}"


def best_metric(config: Mapping[str, Any]) -> tuple[str, str]:
  """The metric that chose a run's best checkpoint, and "min" or "max".

  Args:
    config: the config.json of a run.
  """
  first = config["data.eval"].split(",")[0]
  named = re.match(r"\s*([A-Za-z_][\w-]*)=", first)
  name = named[1] if named else "valid"
  metric = config["train.best_metric"] or f"eval/{name}/loss"
  return metric, config["train.best_mode"]


def outcome(folder: Path) -> Row:
  """Step and metrics of a run's best checkpoint; the last, where none is."""
  config = json.loads((folder / "config.json").read_text("utf-8"))
  metric, mode = best_metric(config)
  lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
  steps = [json.loads(line) for line in lines]
  # JSON has null for what was not finite.
  measured = [v for v in steps if v.get(metric) is not None]
  choose = min if mode == "min" else max
  best = choose(measured, key=lambda v: v[metric]) if measured else steps[-1]
  names = [n for n in best if n == "step" or n.startswith(("eval/", "train/"))]
  return {name: best[name] for name in names}


def read_table(path: Path) -> dict[str, Row]:
  """Rows by member; an absent table is empty.

  Raises:
    Refusal: it is damaged.
  """
  if not path.exists():
    return {}
  try:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["member"]: row for row in rows}
  except (ValueError, LookupError, TypeError) as error:
    raise Refusal(
      f"--workdir={path.parent}: {path} is damaged: restore or remove it; "
      "without it every member is asked again, and what is done stays done"
    ) from error


def write_table(path: Path, rows: Sequence[Row]) -> None:
  """Writes atomically: the table is the old one or the new one, whole."""
  partial = path.with_suffix(".partial")
  with open(partial, "w", encoding="utf-8") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def render(rows: Sequence[Row]) -> str:
  """The table as aligned text, one line a member."""
  names = ["member", "status", "step"]
  for row in rows:
    names += [n for n in row if n.startswith("eval/") and n not in names]
  cells = [names]
  for row in rows:
    values = [row.get(name, "") for name in names]
    cells.append(
      [f"{v:.4f}" if isinstance(v, float) else str(v) for v in values]
    )
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return "\n".join(
    "  ".join(map(str.ljust, line, widths)).rstrip() for line in cells
  )


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
  """Inside, no other sweep runs there; a killed one holds nothing.

  Raises:
    Refusal: another one does.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  with open(workdir / "sweep.lock", "a+") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise Refusal(
        f"--workdir={workdir}: the sweep of {file.read() or 'another process'} "
        "runs there: wait for it or end it, or choose another --workdir"
      ) from None
    except OSError as error:
      print(f"{file.name} cannot be locked ({error}): start no second sweep")
    file.truncate(0)
    file.write(f"process {os.getpid()} of {socket.gethostname()}")
    file.flush()
    yield


def run(sweep: Sequence[Member], workdir: Path) -> int:
  """Runs the members that have not finished; returns the exit status.

  Raises:
    Refusal: another sweep runs in `workdir`, or it cannot be written.
  """
  try:
    with held(workdir):
      return _run(sweep, workdir)
  except OSError as error:
    # What was written through a stream has no name.
    file = f" {error.filename}:" if error.filename else ""
    raise Refusal(
      f"--workdir={workdir}:{file} {error.strerror or error}: see to it "
      "that it can be written, and the same command goes on, or choose another "
      "--workdir"
    ) from error


def _run(sweep: Sequence[Member], workdir: Path) -> int:
  path = workdir / "results.jsonl"
  rows = read_table(path)
  children: list[subprocess.Popen] = []
  received = local.pass_signals_on(children)
  failed = False
  for number, member in enumerate(sweep):
    row = rows.get(member.name, {})
    if (
      row.get("status") == "finished"
      and row["fingerprint"] == member.fingerprint
    ):
      print(f"{member.name}: finished before", flush=True)
      continue
    print(f"{member.name}: {number + 1} of {len(sweep)}", flush=True)
    children.clear()
    if not local.start_among(children, received, member.command(workdir)):
      print(f"interrupted before {member.name}; the same command goes on")
      return 128 + received[0]
    status = local.wait(children, received)
    if received:
      print(f"interrupted in {member.name}; the same command goes on")
      return 128 + received[0]
    failed = failed or bool(status)
    if status and row.get("status") == "finished":
      print(
        f"{member.name}: exit {status}; the table keeps what its folder holds, "
        "which other flags made. For these choose another --workdir",
        flush=True,
      )
      continue
    rows[member.name] = {
      "member": member.name,
      "status": f"exit {status}" if status else "finished",
      "flags": member.flags,
      "fingerprint": member.fingerprint,
      **({} if status else outcome(workdir / member.name)),
    }
    write_table(path, [rows[m.name] for m in sweep if m.name in rows])
  table = [rows[member.name] for member in sweep]
  print(f"\n{render(table)}\n\n{path}", flush=True)
  return int(failed)


def main(argv: Sequence[str]) -> None:
  if not CONFIG.value:
    raise Refusal(
      "--config is missing: pass a file with a sweep, --config=configs/dates.py"
    )
  if not WORKDIR.value:
    raise Refusal("--workdir is missing: pass a folder, --workdir=runs/sweep")
  workdir = Path(WORKDIR.value)
  for folder in (workdir, *workdir.absolute().parents):
    if os.path.exists(folder) and not folder.is_dir():
      raise Refusal(f"--workdir={workdir}: {folder} is a file")
  if argv[1:] and not argv[1].startswith("-"):
    raise Refusal(f"{argv[1]!r} is no flag of main.py: write --flag=value")
  sweep = members(CONFIG.value, argv[1:])
  if DRY_RUN.value:
    print("\n".join(shlex.join(m.command(workdir)) for m in sweep))
  else:
    sys.exit(run(sweep, workdir))


if __name__ == "__main__":
  try:
    app.run(main, flags_parser=program.parse)
  except Refusal as refusal:
    program.refuse(refusal)
