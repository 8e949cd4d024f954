"""The jobs of a sweep on a cluster: submitted once each, and found again.

`jobs.jsonl` in the sweep's folder has a line before and after each submission
and one when a job has ended. A sweep that was killed between the first two asks
the cluster whether it has a job of that name. So does one whose submission was
refused, before it tries again.
"""

import dataclasses
import json
import os
import re
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from launch import cluster_command, program
from launch.exit_status import Ended
from launch.members import Member, digest
from launch.program import Program, Refusal

# In a row, before asking for jobs is given up.
_MOST_FAILURES = 10
# Of submitting a member's job.
_MOST_TRIES = 5
# What a job has written as its last may be seen here so much later.
PATIENCE_SECONDS = 60.0


class Launcher(Protocol):
  """What runs commands as jobs: launch.slurm.Slurm, launch.gke.Gke."""

  def name(self, command: Program) -> str: ...
  def render(self, command: Program, name: str) -> str: ...
  def submit(self, command: Program, name: str) -> str: ...
  def find(self, name: str, command: Program) -> str | None: ...
  def ended(self, jobs: Mapping[str, Program]) -> dict[str, Ended]: ...
  def cancel_command(self, jobs: Sequence[str]) -> str: ...


@dataclasses.dataclass
class Refused:
  """A submission that the cluster has not taken, and that is tried again.

  Attributes:
    at: when it was tried last, by the monotonic clock.
  """

  error: str
  tries: int
  at: float


class Jobs:
  """The jobs of a sweep's members, and what has become of them.

  Attributes:
    received: the signals so far.
    running: members by name.
    refused: of those that run, the ones that are still to be submitted.
  """

  def __init__(
    self, launcher: Launcher, workdir: Path, poll_seconds: float = 30.0
  ) -> None:
    """Reads what earlier sweeps there have submitted.

    Args:
      poll_seconds: between looks at the jobs.

    Raises:
      Refusal: what they wrote is damaged.
    """
    self.launcher, self.workdir = launcher, workdir
    self.poll_seconds = poll_seconds
    self.received: list[int] = []
    self.path = workdir / "jobs.jsonl"
    self.last: dict[str, dict[str, Any]] = {}
    self.running: dict[str, Member] = {}
    self.refused: dict[str, Refused] = {}
    self.failures = 0
    self.silent_since: dict[str, float] = {}
    self._read()

  def _read(self) -> None:
    if not self.path.exists():
      return
    data = self.path.read_bytes()
    # A kill may have cut the last line, which then was not acted on.
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
      os.truncate(self.path, len(whole))
    for line in whole.splitlines():
      try:
        record = json.loads(line)
        self.last[record["member"]] = record
      except (ValueError, LookupError, TypeError) as error:
        raise Refusal(
          f"--workdir={self.workdir}: {self.path} is damaged: see which jobs "
          "run, cancel them, and remove it"
        ) from error

  def _write(self, record: dict[str, Any]) -> None:
    self.last[record["member"]] = record
    with open(self.path, "a", encoding="utf-8") as file:
      file.write(json.dumps(record) + "\n")
      file.flush()
      os.fsync(file.fileno())

  def catch_signals(self) -> None:
    """From here on a signal is received; a second one ends this process."""

    def receive(number: int, _: object) -> None:
      self.received.append(number)
      for watched in (signal.SIGINT, signal.SIGTERM):
        signal.signal(watched, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, receive)

  def resume(self, members: Sequence[Member]) -> None:
    """Takes over the jobs of earlier sweeps that may still run.

    Raises:
      Refusal: one of them runs with other flags than its member has now.
    """
    for member in members:
      record = self.last.get(member.name, {})
      if record.get("event") == "submitting":
        command = member.program(self.workdir)
        if (job := self.launcher.find(record["name"], command)) is not None:
          self._write(record | {"event": "submitted", "job": job})
      if self.job(member) is None:
        continue
      if self.last[member.name]["fingerprint"] != member.fingerprint:
        self._leave_or_refuse(member)
        continue
      print(f"{member.name}: job {self.job(member)}, found again", flush=True)
      self.running[member.name] = member

  def _leave_or_refuse(self, member: Member) -> None:
    job = self.job(member)
    assert job is not None
    if not self.launcher.ended({job: member.program(self.workdir)}):
      raise Refusal(
        f"{member.name}: job {job} still runs with other flags; wait for it, "
        f"or cancel it: {self.launcher.cancel_command([job])}"
      )
    self._write(self.last[member.name] | {"event": "ended"})

  def job(self, member: Member) -> str | None:
    """The member's job that was submitted and is not known to have ended."""
    record = self.last.get(member.name, {})
    return record["job"] if record.get("event") == "submitted" else None

  def start(self, member: Member) -> bool:
    """Submits a member's job; False: a signal has come first.

    One that the cluster does not take is tried again by `ended`.

    Raises:
      Refusal: there is no command that submits.
    """
    if self.received:
      return False
    old = self.last.get(member.name, {})
    attempt = old.get("attempt", 0)
    if old.get("event") != "submitting":
      attempt += 1
    record = {
      "member": member.name,
      "fingerprint": member.fingerprint,
      "attempt": attempt,
      "name": job_name(self.workdir, member, attempt),
    }
    self._write(record | {"event": "submitting"})
    self.running[member.name] = member
    self._submit(member)
    return True

  def _submit(self, member: Member) -> None:
    """Submits a job, or notes why the cluster did not take it."""
    record, command = self.last[member.name], member.program(self.workdir)
    before = self.refused.pop(member.name, None)
    tries = before.tries if before else 0
    job, error = None, before.error if before else ""
    try:
      if before:  # It may have been taken all the same.
        job = self.launcher.find(record["name"], command)
      if job is None and tries < _MOST_TRIES:
        job = self.launcher.submit(command, record["name"])
    except cluster_command.NotInstalled:
      del self.running[member.name]
      raise
    except Refusal as refusal:
      error = str(refusal)
    if job is None:
      counts = tries == _MOST_TRIES or not self._is_full(member, error)
      if not before or error != before.error:
        print(f"{member.name}: not submitted: {error}", flush=True)
      now = time.monotonic()
      self.refused[member.name] = Refused(error, tries + counts, now)
      return
    self._write(record | {"event": "submitted", "job": job})
    print(f"{member.name}: job {job}", flush=True)

  def _is_full(self, member: Member, error: str) -> bool:
    """Whether it seems to be refused because of this sweep's other jobs."""
    others = self.running.keys() - self.refused.keys() - {member.name}
    limit = re.search("limit|quota", error, re.IGNORECASE)
    return bool(others and limit)

  def _submit_again(self) -> dict[str, Ended]:
    """Tries those that were refused; gives those that are given up."""
    given_up = {}
    for name, refused in [*self.refused.items()]:
      if time.monotonic() - refused.at < self.poll_seconds or self.received:
        continue
      self._submit(self.running[name])
      refused = self.refused.get(name)
      if refused and refused.tries > _MOST_TRIES:
        del self.refused[name], self.running[name]
        given_up[name] = Ended(None, refused.error, submitted=False)
    return given_up

  def ended(self) -> dict[str, Ended]:
    """The members whose jobs have ended since the last call.

    Those that were refused are submitted again; one that is given up has ended.

    Raises:
      Refusal: the cluster has not answered for long.
    """
    return self._submit_again() | self._ended()

  def _submitted(self) -> dict[str, Member]:
    """The running members by their jobs."""
    return {
      self.last[name]["job"]: member
      for name, member in self.running.items()
      if name not in self.refused
    }

  def _ended(self) -> dict[str, Ended]:
    jobs = self._submitted()
    if not jobs:
      return {}
    commands = {job: m.program(self.workdir) for job, m in jobs.items()}
    try:
      found = self.launcher.ended(commands)
    except Refusal as refusal:
      self.failures += 1
      if self.failures >= _MOST_FAILURES:
        raise
      print(f"{refusal}; asking again", flush=True)
      return {}
    self.failures = 0
    found = {job: end for job, end in found.items() if self._is_known(job, end)}
    for job in found:
      del self.running[jobs[job].name]
    return {jobs[job].name: ended for job, ended in found.items()}

  def _is_known(self, job: str, end: Ended) -> bool:
    """False: the job has gone, and how it ended may still be seen."""
    now = time.monotonic()
    since = self.silent_since.setdefault(job, now)
    return end.status is not None or now - since >= PATIENCE_SECONDS

  def close(self, member: Member) -> None:
    """A member's end is in the table: its job need not be found again."""
    # A job that was given up may be there nevertheless, or come.
    if self.job(member) is not None:
      self._write(self.last[member.name] | {"event": "ended"})

  def pause(self) -> None:
    """Waits for the next look, or for a signal."""
    end = time.monotonic() + self.poll_seconds
    while self.running and not self.received and time.monotonic() < end:
      time.sleep(0.1)

  def interrupted(self, _: Member | None) -> str:
    """What to say when the sweep is left and its jobs are not."""
    jobs = [*self._submitted()]
    if not jobs:
      return "interrupted; the same command goes on"
    cancel = self.launcher.cancel_command(jobs)
    return (
      f"interrupted; {len(jobs)} jobs go on by themselves, and the same "
      f"command finds them; to cancel them: {cancel}"
    )


def job_name(workdir: Path, member: Member, attempt: int) -> str:
  """A job's name, which is another one for each submission."""
  whole = f"{workdir}\n{member.name}\n{member.fingerprint}\n{attempt}"
  first = program.name_of(Program((f"--workdir={workdir}",)))
  return f"{first[:30].strip('-')}-{digest(whole)}"


def render(launcher: Launcher, members: Sequence[Member], workdir: Path) -> str:
  """A script for bash that submits every member once."""
  lines = []
  for member in members:
    command = member.program(workdir)
    text = launcher.render(command, job_name(workdir, member, 1))
    verb = "kubectl apply -f -" if text.startswith("apiVersion") else "sbatch"
    end = "END"
    while f"\n{end}\n" in text:
      end += "_"
    if verb == "sbatch":  # Slurm makes no folder for its log.
      lines.append(f"mkdir -p {shlex.quote(str(workdir / member.name))}")
    lines += [f"{verb} <<'{end}'", f"{text}{end}"]
  return "\n".join(lines) + "\n"
