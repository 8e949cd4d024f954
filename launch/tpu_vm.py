"""A run on TPU VMs: asks for them, sets them up, runs, and deletes them.

  python -m launch.tpu_vm --zone=us-west4-a --accelerator_type=v5litepod-16 \
    --spot --bucket=my-bucket -- \
    --config=configs/bert2bert_cnn_dailymail.py:pod --workdir=/bucket/runs/b2b

--dry_run prints a script that does the same once. The command stays until the
run has ended. TPUs that are preempted are deleted and asked for again, and the
run goes on where it was; so it does after an end that another start can mend,
--max_restarts times in all. At the end the TPUs are deleted, unless --keep.

The same command finds TPUs of its --name that are there, and takes them.
Ctrl-C or SIGTERM stop the run, which saves; a second one leaves all as it is.
"""

from launch import early

if __name__ == "__main__":
  early.watch()

import dataclasses
import re
import shlex
import signal
import sys
import time

from absl import flags

from launch import cluster_command, exit_status, program
from launch.cloud import accelerators, shared_folder
from launch.cloud.tpu_commands import STOP, TpuVm
from launch.cloud.tpu_start import Start, set_up
from launch.program import Program, Refusal

# States of a queued resource without TPUs: one that ends is waited for, and one
# that has ended stays until it is deleted.
ENDING, ENDED = ("SUSPENDING", "DELETING"), ("FAILED", "SUSPENDED")
LOST = (*ENDING, *ENDED)
OWN = flags.FlagValues()
# In a row, before asking for the state is given up.
_MOST_FAILURES = 10
# Of setting the hosts up: new ones may not let anyone in yet, or still update
# themselves.
_MOST_TRIES = 5


def define(own: flags.FlagValues) -> None:
  """The flags of this launcher."""

  def text(name: str, default: str, what: str) -> None:
    flags.DEFINE_string(name, default, what, flag_values=own)

  def number(name: str, default: int, lowest: int, what: str) -> None:
    flags.DEFINE_integer(
      name, default, what, lower_bound=lowest, flag_values=own
    )

  def switch(name: str, what: str) -> None:
    flags.DEFINE_bool(name, False, what, flag_values=own)

  text("project", "", "Of Google Cloud; by default gcloud's own.")
  text("zone", "", "Where the TPUs are: us-west4-a.")
  text("accelerator_type", "", "Of a slice: v5litepod-16.")
  text("version", "", "Of the runtime; by default the type's own.")
  text("python", "python3.11", "Of the hosts; installed where it is missing.")
  text("name", "", "Of the TPUs; by default of the workdir.")
  number("num_slices", 1, 1, "Slices joined by the network.")
  switch("spot", "Cheaper, and preempted at any time.")
  shared_folder.define(own)
  number("max_restarts", 20, 0, "Of the run, preemptions included.")
  number("grace_seconds", 300, 1, "From SIGTERM to SIGKILL.")
  flags.DEFINE_float(
    "poll_seconds", 30.0, "Between looks at the TPUs.", flag_values=own
  )
  switch("keep", "Do not delete the TPUs at the end.")
  switch("dry_run", "Print the commands.")


define(OWN)


def tpu_vm(own: flags.FlagValues, command: Program) -> TpuVm:
  """What the flags ask for.

  Raises:
    Refusal: the zone or the type are missing, or the workdir is not shared.
  """
  value = program.values(own)
  if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", value("zone")):
    said = f"={value('zone')} is no zone" if value("zone") else " is missing"
    raise Refusal(f"--zone{said}: pass one that has TPUs, as --zone=us-west4-a")
  kind = value("accelerator_type")
  if not re.fullmatch(r"[a-z0-9]+-\d+", kind):
    said = f"={kind} is no type" if kind else " is missing"
    raise Refusal(
      f"--accelerator_type{said}: pass one, as --accelerator_type=v5litepod-16"
    )
  if not re.fullmatch(r"[\w.-]+", value("python")):
    raise Refusal(f"--python={value('python')}: write a name, as python3.11")
  folder = shared_folder.read(own)
  folder.check(command)
  return TpuVm(
    name=program.check_name(value("name") or program.name_of(command)),
    project=value("project"),
    zone=value("zone"),
    accelerator_type=kind,
    version=value("version") or accelerators.runtime(kind),
    spot=value("spot"),
    slices=value("num_slices"),
    folder=folder,
    python=value("python"),
    grace_seconds=value("grace_seconds"),
  )


@dataclasses.dataclass
class Watch:
  """Looks at the TPUs and at signals, while this command waits.

  Attributes:
    seconds: between looks.
    received: the signals so far.
    created: there are TPUs to delete at the end.
    failures: of asking for the state, in a row.
  """

  machines: TpuVm
  seconds: float
  received: list[int]
  created: bool = False
  failures: int = 0

  def state(self) -> str:
    """Of the queued resource; empty: there is none; "?": it did not answer.

    Raises:
      Refusal: it has not answered for long.
    """
    describe = self.machines.describe()
    status, output, errors = cluster_command.attempt(describe)
    if not status:
      self.failures, self.created = 0, True
      return output.strip()
    if _is_absent(errors):
      return ""
    self.failures += 1
    if self.lost_contact:
      line = cluster_command.last_line(errors)
      raise Refusal(f"{cluster_command.name(describe)} failed: {line}")
    return "?"

  def answer(self) -> str:
    """The state, once it is answered; "?": a signal has come first."""
    while (state := self.state()) == "?" and self.pause():
      pass
    return state

  @property
  def lost_contact(self) -> bool:
    """Whether it is unknown what has become of the TPUs."""
    return self.failures >= _MOST_FAILURES

  def pause(self) -> bool:
    """Waits for the next look; False: a signal has come."""
    end = time.monotonic() + self.seconds
    while not self.received and (left := end - time.monotonic()) > 0:
      time.sleep(min(left, 0.2))
    return not self.received

  def until_active(self) -> bool:
    """Waits for the TPUs, asking for them where there are none.

    Returns:
      False: a signal has come first, or what was asked for has ended.
    """
    said = None
    while not self.received:
      state = self.state()
      if state not in (said, "?"):
        say(f"{self.machines.name}: {state or 'asking for TPUs'}")
        said = state
      if state == "ACTIVE":
        return True
      if state in ENDED:
        return False
      if not state:
        self.create()
      self.pause()
    return False

  def create(self) -> None:
    """Asks for the TPUs.

    Raises:
      Refusal: it has failed; they may have been asked for all the same.
    """
    self.created = True
    create = self.machines.create()
    status, output, errors = cluster_command.attempt(create)
    if status:
      if re.search("already.?exists", errors, re.IGNORECASE):
        self.created = False  # By another command, whose they are.
      line = cluster_command.last_line(errors or output)
      raise Refusal(f"{cluster_command.name(create)} failed: {line}")

  def remove(self) -> None:
    """Deletes the TPUs, and waits until there are none or a signal comes."""
    while not self.received and (state := self.state()):
      if state not in (*ENDING, "?"):
        status, _, errors = cluster_command.attempt(self.machines.delete())
        if status:
          line = cluster_command.last_line(errors)
          say(f"{self.machines.name}: not deleted yet: {line}")
      self.pause()


def say(text: str) -> None:
  print(text, flush=True)


def ready(watch: Watch) -> bool:
  """Sets the hosts up, trying again where it fails.

  Returns:
    False: a signal has come, or the TPUs were lost.

  Raises:
    Refusal: it has failed each time.
  """
  for left in reversed(range(_MOST_TRIES)):
    try:
      set_up(watch.machines)
      break
    except Refusal as refusal:
      # What failed here may be this machine's network.
      if watch.answer() in (*LOST, "") or watch.received:
        return False
      if not left:
        raise
      say(f"{refusal}; trying again")
    if not watch.pause():
      break
  return not watch.received


def start(watch: Watch, command: Program) -> int | None:
  """Sets the hosts up and runs main.py on them to its end.

  Returns:
    Its exit status; None: the TPUs were lost.
  """
  machines = watch.machines
  if not ready(watch):
    return None
  say(f"{machines.name}: running")
  run, stopped = Start(machines, command), False
  try:
    looked = time.monotonic()
    while run.running:
      time.sleep(0.05)
      if watch.received and not stopped:
        stopped = True
        for node in machines.nodes:
          cluster_command.attempt(machines.ssh(node, STOP))
      if time.monotonic() - looked > watch.seconds:
        looked = time.monotonic()
        if watch.state() in LOST:
          return None
  finally:
    run.end()
  # A connection that broke is not yet known to be a preemption.
  if run.silent and watch.answer() in (*LOST, ""):
    return None
  return run.status


def run_to_the_end(watch: Watch, command: Program, max_restarts: int) -> int:
  """Starts the run until it has ended for good; returns the exit status."""
  status, what = exit_status.LOST, ""
  for restarts in range(max_restarts + 1):
    status = start(watch, command) if watch.until_active() else None
    if watch.received:
      return 128 + watch.received[0]
    lost = status is None
    status = exit_status.LOST if status is None else status
    if not exit_status.runs_again(status):
      return status
    what = "the TPUs were lost" if lost else f"main.py ended by {status}"
    if restarts == max_restarts:
      break
    say(f"{watch.machines.name}: {what}; restart {restarts + 1}")
    if lost:
      watch.remove()
  say(f"{watch.machines.name}: {what}, after {max_restarts} restarts")
  return status


def catch_signals(machines: TpuVm) -> list[int]:
  """The signals that come from here on; a second one ends this command."""
  received: list[int] = []

  def receive(number: int, _: object) -> None:
    received.append(number)
    if len(received) > 1:
      sys.exit(f"left as it is; {_removal(machines)}")
    say("stopping; a second signal leaves all as it is")

  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, receive)
  return received


def _is_absent(errors: str) -> bool:
  """Whether a command has failed since there is no such queued resource."""
  return bool(re.search("not.?found", errors, re.IGNORECASE))


def _removal(machines: TpuVm) -> str:
  return f"to delete the TPUs: {shlex.join(machines.delete())}"


def launch(command: Program) -> int:
  """The whole of it; returns the exit status."""
  machines, value = tpu_vm(OWN, command), program.values(OWN)
  if value("dry_run"):
    print(machines.whole(command), end="")
    return 0
  received = catch_signals(machines)
  watch = Watch(machines, value("poll_seconds"), received)
  try:
    return run_to_the_end(watch, command, value("max_restarts"))
  finally:
    if watch.created and len(received) < 2:
      if watch.lost_contact:
        say(
          "the TPUs are left as they are, and the run may go on: the same "
          f"command takes them over; {_removal(machines)}"
        )
      elif value("keep"):
        say(_removal(machines))
      else:
        status, _, errors = cluster_command.attempt(machines.delete())
        if status and not _is_absent(errors):
          say(f"they could not be deleted; {_removal(machines)}")


if __name__ == "__main__":
  program.launch(__doc__, OWN, launch)
