"""A sweep: the members of a config's get_hyper(), and a table of their results.

  python -m launch.sweep --config=configs/dates.py --workdir=runs/sweep
  python -m launch.sweep --config=configs/dates.py --workdir=runs/sweep \
    --dry_run                                     # prints the command lines
  python -m launch.sweep --config=configs/dates.py:smoke --workdir=runs/sweep \
    -- --config.train.keep_last=1                 # flags for every member
  python -m launch.sweep --config=... --workdir=/shared/sweep --max_parallel=8 \
    --launcher=slurm --launcher_flags="--account=lab --time=4:00:00"

Each member runs main.py in a folder of its own, named after its overrides:
one after another on this machine, or --max_parallel at a time, or as jobs of a
cluster, by --launcher with its own flags in --launcher_flags.

`results.jsonl` holds a line for each member that has ended, at its best
checkpoint. The same command again goes on where the last one stopped:
finished members are not run again, jobs that run are found, the interrupted
one resumes, failed ones are tried once more.
"""

from launch import early

if __name__ == "__main__":
  early.watch()

import contextlib
import fcntl
import os
import shlex
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import app, flags

from launch import gke, program, slurm, submissions
from launch.exit_status import Ended
from launch.member_processes import MemberProcesses
from launch.members import Member, members
from launch.program import Refusal
from launch.results import (
  Row,
  outcome,
  read_table,
  render,
  render_errors,
  write_table,
)
from launch.submissions import Jobs, Launcher

CONFIG = flags.DEFINE_string("config", None, "A file of configs/, :variant.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the command lines.")
LAUNCHER = flags.DEFINE_enum(
  "launcher", "local", ["local", "slurm", "gke"], "What runs the members."
)
LAUNCHER_FLAGS = flags.DEFINE_string(
  "launcher_flags", "", "Of launch.slurm or launch.gke, as a shell has them."
)
MOST = flags.DEFINE_integer(
  "max_parallel", 1, "Members that run at a time.", lower_bound=1
)
POLL_SECONDS = flags.DEFINE_float(
  "poll_seconds", 30.0, "Between looks at a cluster's jobs.", lower_bound=0.1
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


def run(
  sweep: Sequence[Member],
  workdir: Path,
  most: int = 1,
  launcher: Launcher | None = None,
) -> int:
  """Runs the members that have not finished; returns the exit status.

  Args:
    most: members that run at a time.
    launcher: of a cluster; None: they are processes of this machine.

  Raises:
    Refusal: another sweep runs in `workdir`, or it cannot be written.
  """
  try:
    with held(workdir):
      if launcher is None:
        runner = MemberProcesses(workdir, side_by_side=most > 1)
      else:
        runner = Jobs(launcher, workdir, POLL_SECONDS.value)
      try:
        return _run(sweep, workdir, most, runner)
      except Refusal:
        if runner.running and isinstance(runner, Jobs):
          print(runner.interrupted(None), flush=True)
        raise
  except OSError as error:
    # What was written through a stream has no name.
    file = f" {error.filename}:" if error.filename else ""
    raise Refusal(
      f"--workdir={workdir}:{file} {error.strerror or error}: see to it "
      "that it can be written, and the same command goes on, or choose another "
      "--workdir"
    ) from error


def _run(
  sweep: Sequence[Member],
  workdir: Path,
  most: int,
  runner: MemberProcesses | Jobs,
) -> int:
  path = workdir / "results.jsonl"
  rows = read_table(path)
  by_name = {member.name: member for member in sweep}
  waiting = [m for m in sweep if not _has_finished(rows, m)]
  for member in sweep:
    if member not in waiting:
      print(f"{member.name}: finished before", flush=True)
  if isinstance(runner, Jobs):
    runner.catch_signals()
    runner.resume(waiting)
    waiting = [m for m in waiting if m.name not in runner.running]
  failed = False
  while waiting or runner.running:
    while waiting and len(runner.running) < most:
      number = sweep.index(waiting[0]) + 1
      print(f"{waiting[0].name}: {number} of {len(sweep)}", flush=True)
      if not runner.start(waiting[0]):
        break
      waiting.pop(0)
    if runner.received:
      print(runner.interrupted(waiting[0] if waiting else None), flush=True)
      return 128 + runner.received[0]
    for name, ended in runner.ended().items():
      member = by_name[name]
      failed = not _note(rows, member, ended, workdir) or failed
      write_table(path, [rows[m.name] for m in sweep if m.name in rows])
      runner.close(member)
    runner.pause()
  table = [rows[member.name] for member in sweep]
  errors = render_errors(table)
  print(f"\n{render(table)}\n", flush=True)
  print(f"{errors}\n\n{path}" if errors else path, flush=True)
  return int(failed)


def _has_finished(rows: dict[str, Row], member: Member) -> bool:
  row = rows.get(member.name, {})
  finished = row.get("status") == "finished"
  return finished and row["fingerprint"] == member.fingerprint


def _note(
  rows: dict[str, Row], member: Member, ended: Ended, workdir: Path
) -> bool:
  """Puts a member's end into the table; gives whether it has finished."""
  row = {
    "member": member.name,
    "status": f"exit {ended.status}",
    "flags": member.flags,
    "fingerprint": member.fingerprint,
  }
  error = ended.error
  if not ended.submitted:
    row["status"] = "not submitted"
  elif ended.status is None:
    row["status"] = "lost"
  elif ended.status == 0:
    try:
      found = outcome(workdir / member.name)
      rows[member.name] = row | {"status": "finished"} | found
      return True
    except (FileNotFoundError, ValueError, LookupError) as wrong:
      # Of a cluster's job, this machine may see another folder.
      error = f"its results cannot be read here: {wrong}"
  said = f": {error}" if error else ""
  print(f"{member.name}: {row['status']}{said}", flush=True)
  if rows.get(member.name, {}).get("status") == "finished":
    print(
      f"{member.name}: the table keeps what its folder holds, which other "
      "flags made. For these choose another --workdir",
      flush=True,
    )
  else:
    rows[member.name] = row | ({"error": error} if error else {})
  return False


def read_launcher(name: str, text: str, workdir: Path) -> Launcher | None:
  """The launcher of a cluster, by its flags; None: this machine.

  Raises:
    Refusal: they are wrong, or the sweep does not see what its members write.
  """
  if name == "local":
    if text:
      raise Refusal(
        f"--launcher_flags={text!r} are a cluster's: leave them out, or add "
        "--launcher=slurm"
      )
    return None
  module = {"slurm": slurm, "gke": gke}[name]
  own = flags.FlagValues()
  module.define(own)
  try:
    rest = own([name, *shlex.split(text)])[1:]
  except (flags.Error, ValueError) as error:
    raise Refusal(f"--launcher_flags={text!r}: {error}") from error
  taken = [flag for flag in ("name", "dry_run") if own[flag].present]
  if rest or taken:
    wrong = rest[0] if rest else f"--{taken[0]}"
    raise Refusal(
      f"--launcher_flags={text!r}: {wrong} does not belong there: pass flags "
      f"of launch.{name} but --name and --dry_run, which are the sweep's"
    )
  if name == "slurm":
    return slurm.Slurm(own)
  launcher = gke.Gke(own)
  if not os.path.isdir(launcher.folder.mount):
    raise Refusal(
      f"--workdir={workdir}: a sweep reads there what its members write: mount "
      f"the shared folder here, too, at {launcher.folder.mount}"
    )
  return launcher


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
  launcher = read_launcher(LAUNCHER.value, LAUNCHER_FLAGS.value, workdir)
  if launcher is not None:
    workdir = workdir.absolute()
    for member in sweep:  # Before the first of them is submitted.
      launcher.name(member.program(workdir))
  if not DRY_RUN.value:
    sys.exit(run(sweep, workdir, MOST.value, launcher))
  if launcher is None:
    print("\n".join(shlex.join(m.command(workdir)) for m in sweep))
  else:
    print(submissions.render(launcher, sweep, workdir), end="")


if __name__ == "__main__":
  try:
    app.run(main, flags_parser=program.parse)
  except Refusal as refusal:
    program.refuse(refusal)
