"""A run on a Slurm cluster, as a batch job that goes on where it was stopped.

  python -m launch.slurm --account=lab --nodes=4 --gpus_per_node=8 \
    --cpus_per_task=64 --time=24:00:00 -- \
    --config=configs/bert2bert_cnn_dailymail.py:pod --workdir=/shared/runs/b2b

prints the job's number. --dry_run prints the script instead: `> job.sh` keeps
it, and `sbatch job.sh` submits it.

The job runs one task a node. Before its time is over, and when it is
preempted, Slurm sends the tasks SIGTERM: the run saves, and the job goes back
into the queue. So does one that lost a host, or was stopped before it had a
step to save, --max_restarts times at most.
`exit_status.json` in the workdir says how main.py last ended.
"""

from launch import early

if __name__ == "__main__":
  early.watch()

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from launch import cluster_command, exit_status, local, program
from launch.program import Program, Refusal

STATUS_FILE = "exit_status.json"
OWN = flags.FlagValues()


def define(own: flags.FlagValues) -> None:
  """The flags of this launcher."""

  def text(name: str, default: str, what: str) -> None:
    flags.DEFINE_string(name, default, what, flag_values=own)

  def number(name: str, default: int, lowest: int, what: str) -> None:
    flags.DEFINE_integer(
      name, default, what, lower_bound=lowest, flag_values=own
    )

  text("account", "", "Who pays; or SBATCH_ACCOUNT in the environment.")
  text("partition", "", "The cluster's default, when empty.")
  text("qos", "", "Quality of service.")
  text("time", "", "Limit of one start: 24:00:00. It goes on after it.")
  text("name", "", "Of the job; by default of the workdir.")
  text("setup", "", "Shell commands before main.py: 'module load cuda'.")
  number("nodes", 1, 1, "Machines.")
  number("gpus_per_node", 0, 0, "GPUs of a machine; 0: none are asked for.")
  number("cpus_per_task", 0, 0, "Cores of a machine; 0: Slurm's default.")
  number("grace_seconds", 120, 1, "From SIGTERM to the end of the time.")
  number("max_restarts", 10, 0, "After failures, and stops that saved nothing.")
  flags.DEFINE_multi_string(
    "sbatch", [], "One more option: --sbatch=--mem=0.", flag_values=own
  )
  flags.DEFINE_bool("dry_run", False, "Print the script.", flag_values=own)


define(OWN)

# In place of each @word@ stands a value.
#
# Slurm sends the signal to the tasks, not to this shell ("B:"): an srun that
# gets SIGTERM kills its tasks, and nothing would be saved.
SCRIPT = r"""#!/usr/bin/env bash
@options@

set -uo pipefail
name=@name@
workdir=@workdir@
main=(
@command@
)

cd -- @folder@ || exit 1
mkdir -p -- "$workdir" || exit 1
file=$workdir/@file@

# Writes how main.py ended, whole or not at all: status, restarts, again.
write_status() {
  {
    printf '{"name": "%s", "job": "%s", ' "$name" "$SLURM_JOB_ID"
    printf '"status": %s, "restarts": %d, "again": %s}\n' "$@"
  } >"$file.partial" && mv -f -- "$file.partial" "$file"
}

# A job that is cancelled or preempted gets SIGTERM whole. This shell stays
# until its tasks have saved, and writes it down.
trap : TERM

restarts=
if grep -qs "\"job\": \"$SLURM_JOB_ID\"" "$file"; then
  restarts=$(sed -n 's/.*"restarts": \([0-9]*\).*/\1/p' "$file")
fi
restarts=${restarts:-0}
write_status null "$restarts" true

# The steps that are saved. An incomplete one has no number alone as its name.
saved() {
  for step in "$workdir"/{checkpoints,interrupted}/*; do
    [[ ${step##*/} =~ ^[0-9]+$ ]] && echo "$step"
  done
}
saved_before=$(saved)

@setup@# A task that ends waits for the others, which may still be saving.
srun --nodes=@nodes@ --ntasks=@nodes@ --ntasks-per-node=1@cpus@ \
  --kill-on-bad-exit=0 --wait=@grace_seconds@ "${main[@]}"
status=$?

again=false
if ((status == @lost@ || (status > 128 && status < 160 && status != 130))); then
  again=true
fi
# A stop is no failure where something was saved. A start whose time is over
# before its first step would come back for ever.
failed=true
if ((status == @terminated@)) && [[ $(saved) != "$saved_before" ]]; then
  failed=false
fi
if $again && $failed; then
  if ((restarts < @max_restarts@)); then
    restarts=$((restarts + 1))
  else
    again=false
    echo "main.py ended by $status: it has had its @max_restarts@ restarts"
  fi
fi
if $again; then
  # One that was cancelled is completing, and must not come back.
  state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
  if [[ $state == COMPLETING || $state == CANCELLED* ]]; then
    again=false
  fi
fi
write_status "$status" "$restarts" "$again"
if $again; then
  echo "main.py ended by $status: the job goes back into the queue"
  scontrol requeue "$SLURM_JOB_ID" && exit 0
  write_status "$status" "$restarts" false
fi
exit "$status"
"""


class Slurm:
  """Jobs by the commands of Slurm."""

  def __init__(self, own: flags.FlagValues) -> None:
    """Checks what the flags say.

    Raises:
      Refusal: there is no account, or a value that sbatch would not take.
    """
    self.value = value = program.values(own)
    self.account = value("account") or os.environ.get("SBATCH_ACCOUNT", "")
    if not self.account:
      raise Refusal(
        "--account is missing: pass the one that pays for the job, as "
        "--account=lab; `sacctmgr show associations user=$USER` lists yours"
      )
    for flag in ("account", "partition", "qos", "time"):
      if re.search(r"[\s\"'\\#]", value(flag) or ""):
        raise Refusal(
          f"--{flag}={value(flag)!r}: sbatch takes no space or quote there"
        )
    for option in value("sbatch"):
      if not re.fullmatch(r"--?[^\s\"'\\#]+", option):
        raise Refusal(
          f"--sbatch={option!r}: write one option of sbatch, its value after "
          "=, as in --sbatch=--mem=0"
        )

  def name(self, command: Program) -> str:
    return program.check_name(self.value("name") or program.name_of(command))

  def workdir(self, command: Program) -> Path:
    """The folder of the run, which the nodes see under the same path.

    Raises:
      Refusal: Slurm would not take its name for the file of the log.
    """
    folder = Path(command.workdir).absolute()
    if re.search(r"[\"'\\%\n]", str(folder)):
      raise Refusal(
        f"--workdir={str(folder)!r}: Slurm writes its log there, and takes no "
        "quote, backslash, percent sign or end of line in a path"
      )
    return folder

  def render(self, command: Program, name: str) -> str:
    """The batch script."""
    value = self.value
    workdir = self.workdir(command)
    options = [
      f"--job-name={name}",
      f"--account={self.account}",
      *(
        f"--{flag}={value(flag)}"
        for flag in ("partition", "qos", "time")
        if value(flag)
      ),
      f"--nodes={value('nodes')}",
      "--ntasks-per-node=1",
    ]
    if value("gpus_per_node"):
      options.append(f"--gpus-per-node={value('gpus_per_node')}")
    if value("cpus_per_task"):
      options.append(f"--cpus-per-task={value('cpus_per_task')}")
    options += [
      f"--signal=TERM@{value('grace_seconds')}",
      "--requeue",
      "--open-mode=append",
      f'--output="{workdir}/slurm-%j.out"',
      *value("sbatch"),
    ]
    words = [sys.executable, str(local.MAIN), *command.flags]
    setup = f"{value('setup')}\n\n" if value("setup") else ""
    # srun has not taken this from the job since Slurm 22.05.
    cores = value("cpus_per_task")
    values = {
      "options": "\n".join(f"#SBATCH {option}" for option in options),
      "name": shlex.quote(name),
      "workdir": shlex.quote(str(workdir)),
      "command": "\n".join(f"  {shlex.quote(word)}" for word in words),
      "folder": shlex.quote(os.getcwd()),
      "file": STATUS_FILE,
      "setup": setup,
      "nodes": value("nodes"),
      "cpus": f" --cpus-per-task={cores}" if cores else "",
      "grace_seconds": value("grace_seconds"),
      "lost": exit_status.LOST,
      "terminated": exit_status.TERMINATED,
      "max_restarts": value("max_restarts"),
    }
    # At once, so that nothing in a value is taken for a place.
    return re.sub("@([a-z_]+)@", lambda match: str(values[match[1]]), SCRIPT)

  def submit(self, command: Program, name: str) -> str:
    """Submits a job; returns its number.

    Raises:
      Refusal: it cannot be submitted.
    """
    script, workdir = self.render(command, name), self.workdir(command)
    try:
      # Slurm makes no folder for its log.
      workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise Refusal(
        f"--workdir={workdir} cannot be made: {error.strerror}"
      ) from error
    printed = cluster_command.call(["sbatch", "--parsable"], script)
    # The number, and behind a semicolon the cluster's name.
    return printed.strip().splitlines()[-1].partition(";")[0]

  def find(self, name: str, command: Program) -> str | None:
    """The number of the job of this name; None: it was never submitted."""
    command_line = ["squeue", "--noheader", "--me", f"--name={name}"]
    found = cluster_command.call([*command_line, "--format=%i"]).split()
    if found:
      return found[-1]
    written = self._written(command)
    return written["job"] if written.get("name") == name else None

  def ended(self, jobs: Mapping[str, Program]) -> dict[str, exit_status.Ended]:
    """Those jobs, by their numbers, that have left the queue.

    Raises:
      Refusal: the queue cannot be asked.
    """
    listing = ["squeue", "--noheader", "--me", "--format=%i"]
    queued = set(cluster_command.call(listing).split())
    gone = {}
    for job in jobs.keys() - queued:
      written = self._written(jobs[job])
      status = written.get("status") if written.get("job") == job else None
      log = self.workdir(jobs[job]) / f"slurm-{job}.out"
      error = "" if status == 0 else cluster_command.last_line_of(log)
      gone[job] = exit_status.Ended(status, error)
    return gone

  def cancel_command(self, jobs: Sequence[str]) -> str:
    return shlex.join(["scancel", *jobs])

  def _written(self, command: Program) -> dict:
    """What the job's script has written last; empty: nothing."""
    try:
      text = (self.workdir(command) / STATUS_FILE).read_text("utf-8")
      return json.loads(text)
    except (OSError, ValueError):
      return {}


def launch(command: Program) -> int:
  """Submits the run, or prints its script."""
  slurm = Slurm(OWN)
  name = slurm.name(command)
  if not OWN["dry_run"].value:
    early.watch("ask squeue whether the job was submitted")
    print(slurm.submit(command, name))
    return 0
  print(slurm.render(command, name), end="")
  folder = slurm.workdir(command)
  if not folder.is_dir():
    print(f"before: mkdir -p {shlex.quote(str(folder))}", file=sys.stderr)
  return 0


if __name__ == "__main__":
  program.launch(__doc__, OWN, launch)
