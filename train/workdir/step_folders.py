"""The folders of a run's checkpoints: which are there, which are good."""

import os
import pathlib
import shutil

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from train.errors import Refusal
from train.workdir import checksums

# The checkpointer renames what it retires into this folder, so that a kill in
# the middle of a deletion leaves no half of a step under a step's name.
RETIRED = "retired"
SET_ASIDE = "set_aside"


class StepFolders:
  """One folder with a folder a step, shared by the processes of a run.

  Writable, a bad step is moved to `set_aside/<step>-<n>`; else it is passed
  over, and nothing is created, moved or removed. Both say so in the log.
  """

  def __init__(self, directory: str | os.PathLike[str], *, writable: bool):
    """Raises Refusal where there is nothing to read."""
    self.path = pathlib.Path(directory).absolute()
    self.writable = writable
    self._process = jax.process_index()
    self._processes = jax.process_count()
    self._passed_over: set[int] = set()
    if not writable and not self.path.is_dir():
      raise Refusal(
        f"{self.path} is missing: nothing was saved there; check --workdir, "
        "or train first"
      )
    if writable and self._process == 0:
      self.path.mkdir(parents=True, exist_ok=True)
      self.clear_retired()
    if self._process == 0 or not writable:
      for step in self.steps():
        problem = checksums.find_problem(self.of(step), contents=False)
        if problem is not None:
          self._drop(step, problem)
        elif writable:
          checksums.seal(self.of(step))
    multihost_utils.sync_global_devices("checkpoints_opened")

  def of(self, step: int) -> pathlib.Path:
    return self.path / str(step)

  def being_written(self, step: int | None) -> pathlib.Path:
    """The folder of a save under way: it is renamed when it is complete."""
    folders = list(self.path.glob(f"{step}.*"))
    if len(folders) != 1:
      raise RuntimeError(
        f"step {step} of {self.path} is being written to "
        f"{[path.name for path in folders]}, where one folder was expected"
      )
    return folders[0]

  def steps(self) -> list[int]:
    """The steps that are there, ascending; not one that is being saved."""
    if not self.path.is_dir():
      return []
    names = (path.name for path in self.path.iterdir() if path.is_dir())
    steps = {int(name) for name in names if name.isdecimal()}
    return sorted(steps - self._passed_over)

  def has(self, step: int) -> bool:
    """Whether the step is there, for all processes alike."""
    return self.agreed(step if step in self.steps() else None) is not None

  def agreed(self, step: int | None) -> int | None:
    """The first process's step: others may still see what it has moved."""
    if self._processes == 1:
      return step
    sent = np.int32(-1 if step is None else step)
    decided = int(multihost_utils.broadcast_one_to_all(sent))
    return None if decided == -1 else decided

  def clear_retired(self) -> None:
    shutil.rmtree(self.path / RETIRED, ignore_errors=True)

  def verify(self, step: int) -> bool:
    """Reads all of a step's files; a bad step is no longer there afterwards."""
    problem = self._problem(step)
    if problem is None:
      return True
    if self._process == 0 or not self.writable:
      self._drop(step, problem)
    multihost_utils.sync_global_devices("checkpoints_set_aside")
    return False

  def require(self, step: int) -> None:
    """Raises Refusal unless the step is there and good."""
    if step not in self.steps():
      have = ", ".join(map(str, self.steps())) or "none"
      raise Refusal(f"step {step} is not in {self.path}; it has: {have}")
    problem = self._problem(step)
    if problem is not None:
      raise Refusal(f"{self.of(step)} is bad: {problem}; take another step")

  def _problem(self, step: int) -> str | None:
    """What is wrong with a step: each process reads its share of the files."""
    problem = checksums.find_problem(
      self.of(step), contents=True, part=self._process, parts=self._processes
    )
    if self._processes == 1:
      return problem
    is_bad = multihost_utils.process_allgather(np.asarray(problem is not None))
    if problem is not None:
      logging.warning("%s is bad: %s", self.of(step), problem)
    elif is_bad.any():
      return f"process {is_bad.argmax()} says why in its log"
    return problem

  def _drop(self, step: int, problem: str) -> None:
    folder = self.of(step)
    if not self.writable:
      logging.warning("%s is bad and passed over: %s", folder, problem)
      self._passed_over.add(step)
      return
    aside = self.path / SET_ASIDE
    aside.mkdir(exist_ok=True)
    target = aside / f"{step}-{len(list(aside.glob(f'{step}-*')))}"
    folder.rename(target)
    logging.warning("%s is bad, set aside as %s: %s", folder, target, problem)
