"""Faults that befall a run of several processes, and the moments for them."""

import dataclasses
import re
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.train.processes import runs
from tests.train.processes.runs import Started


@dataclasses.dataclass(frozen=True)
class Victim:
  """A run, and what a fault may take away of it."""

  run: Started
  folder: Path
  draw: Random

  def send(self, number: signal.Signals, *, to_all: bool = False) -> None:
    self.run.send(number, self.every() if to_all else [self.one()])

  def every(self) -> range:
    return range(len(self.run.processes))

  def one(self) -> int:
    return self.draw.randrange(len(self.run.processes))


def fill_disk(victim: Victim) -> None:
  """As a full disk: no file of one process grows further."""
  process = victim.run.processes[victim.one()]
  if process.poll() is None:
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))


def lose_store(victim: Victim) -> None:
  """Takes the prepared sets away, under running processes."""
  shutil.rmtree(victim.folder / "store", ignore_errors=True)


def lose_shard(victim: Victim) -> None:
  """Takes a file of a prepared set away, under running processes."""
  shards = sorted((victim.folder / "store").glob("*/shard-*"))
  if shards:
    victim.draw.choice(shards).unlink()


def lose_shard_of_ended(victim: Victim) -> None:
  """Kills all, and takes a file of a prepared set away."""
  end_all(victim)
  lose_shard(victim)


def damage(victim: Victim) -> None:
  """Kills all, and takes a file of the newest checkpoint away."""
  end_all(victim)
  steps = sorted(
    (p for p in (victim.folder / "checkpoints").glob("*") if p.name.isdigit()),
    key=lambda path: int(path.name),
  )
  if len(steps) > 1:
    files = [p for p in (steps[-1] / "params").rglob("*") if p.is_file()]
    victim.draw.choice(sorted(files)).unlink()


def end_all(victim: Victim) -> None:
  victim.send(signal.SIGKILL, to_all=True)
  victim.run.wait(runs.MINUTE)


FAULTS: dict[str, Callable[[Victim], None]] = {
  "kill one": lambda victim: victim.send(signal.SIGKILL),
  "kill all": lambda victim: victim.send(signal.SIGKILL, to_all=True),
  "stop one": lambda victim: victim.send(signal.SIGTERM),
  "stop all": lambda victim: victim.send(signal.SIGTERM, to_all=True),
  "full disk": fill_disk,
  "no store": lose_store,
  "no shard": lose_shard,
  "no shard of ended": lose_shard_of_ended,
  "damage": damage,
}
# These are met when there is something to write or to read, or never.
MET_LATER = ("full disk", "no store", "no shard")


def _said(*patterns: str) -> Callable[[Victim], bool]:
  def begun(victim: Victim) -> bool:
    return any(re.search(p, victim.run.text()) for p in patterns)

  return begun


def _there(pattern: str) -> Callable[[Victim], bool]:
  return lambda victim: any(victim.folder.glob(pattern))


# Whether a phase has begun; its programs are those that JAX logs.
PHASES: dict[str, Callable[[Victim], bool]] = {
  "preparing": _there("store/*.partial"),
  "compiling": _said("the step compiles"),
  "steps": _said(r"step \d+ of \d+: loss"),
  "saving": lambda victim: (
    _there("checkpoints/*orbax-checkpoint-tmp*")(victim)
    # Those of an earlier start are removed before that.
    and _said(r"step \d+ of \d+: loss")(victim)
  ),
  "compiling generation": _said(r"Compiling jit\(run\)"),
  # The first texts are read.
  "generating": _said(r"Finished XLA compilation of jit\(replicate\)"),
}
