"""Checkpoints: saved in the background, verified when read, kept or retired.

The one file that knows Orbax. A step's folder has the items `params`,
`opt_state`, `ema` (if any) and `meta` (JSON), and the checksums of its files,
which appear with the folder itself: an old step goes only after that.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from train.errors import Refusal
from train.optim.ema import abstract_average, averaged
from train.state import TREES, TrainState, placed, tree_difference
from train.workdir import checksums, step_folders
from train.workdir.background_errors import BackgroundErrors

# Goes up with every change of what a checkpoint holds: items, paths, shapes.
CHECKPOINT_FORMAT = 2


class Checkpoints(contextlib.AbstractContextManager):
  """The steps saved under one folder.

  All processes of a run make one and call its methods together; their folder
  is on a file system that they share and that renames atomically.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    keep_last: int = 1,
    best_metric: str = "",
    best_mode: str = "min",
    writable: bool = True,
  ):
    """Opens the folder; leftovers of a killed run are cleared away.

    Args:
      directory: the folder of the steps, by convention <workdir>/checkpoints.
      keep_last: how many of the newest steps stay.
      best_metric: the step with the best value of this metric stays too;
        empty: none does.
      best_mode: "min" or "max".
      writable: False for a reader, beside a run in progress perhaps: nothing
        is created, moved or removed, and bad steps are passed over.

    Raises:
      Refusal: an argument is out of range, or there is nothing to read.
    """
    if keep_last < 1:
      raise Refusal(f"keep_last={keep_last} must be at least 1")
    if best_mode not in ("min", "max"):
      raise Refusal(f"best_mode={best_mode!r} must be 'min' or 'max'")
    self._best_metric = best_metric
    self._best_mode = best_mode
    self._process = jax.process_index()
    self._processes = jax.process_count()
    self._saving: int | None = None
    self.errors = BackgroundErrors()
    self._folders = step_folders.StepFolders(directory, writable=writable)
    self._manager = self._open_manager(keep_last)

  def __exit__(self, *unused: Any) -> None:
    self.close()

  def save(
    self,
    step: int,
    state: TrainState,
    meta: Mapping[str, Any],
    metrics: Mapping[str, float] | None,
  ) -> bool:
    """Saves in the background; the state may be donated once this returns.

    Call it when the step's `finite` was read and its metrics are written: a
    run that is killed right afterwards goes on from here. A step that is there
    already is left as it is; False says so.

    Args:
      step: the state's own number.
      meta: JSON values; `format`, `step` and `best` (so far) are added.
      metrics: of this step's evaluation; None: it had none.

    Raises:
      Refusal: `metrics` lacks the best metric.
      ValueError: the state is another step's. What went wrong in an earlier
        save is raised too.
    """
    if not self._folders.writable:
      raise ValueError(f"{self._folders.path} was opened for reading")
    if int(state.step) != step:
      raise ValueError(f"the state of step {int(state.step)}, saved as {step}")
    scores = self._scores(step, metrics)
    self.wait()
    if self._folders.has(step):
      return False
    items: dict[str, Any] = {
      name: ocp.args.StandardSave(tree) for name, tree in state.trees().items()
    }
    best = self._best_so_far({step: scores or {}})
    meta = dict(meta, format=CHECKPOINT_FORMAT, step=step, best=best)
    items["meta"] = ocp.args.JsonSave(meta)
    self._saving = step
    self._manager.save(
      step, args=ocp.args.Composite(**items), metrics=scores, force=True
    )
    return True

  def restore(
    self, abstract: TrainState, step: int | None = None
  ) -> tuple[TrainState, dict[str, Any]] | None:
    """The newest good state and its meta; None where nothing was ever saved.

    A bad step is set aside with a warning, and the one before is tried.

    Args:
      abstract: ShapeDtypeStructs with the shardings that the state shall have,
        on whatever mesh.
      step: this one and no other.

    Raises:
      Refusal: `step` is absent or bad, or every step is; the format or the
        tree is another.
    """
    self.wait()
    if step is not None:
      self._folders.require(step)
      return self._restore_state(step, abstract)
    while (newest := self._folders.agreed(self.latest_step())) is not None:
      if self._is_good(newest):
        return self._restore_state(newest, abstract)
    if (bad := self._folders.path / step_folders.SET_ASIDE).is_dir():
      raise Refusal(
        f"every step was bad, and is in {bad}: begin anew in another --workdir"
      )
    return None

  def restore_params(
    self, abstract_params: Any, step: int | None = None
  ) -> tuple[Any, dict[str, Any]]:
    """Parameters, or what averages of them a step has, and its meta.

    Args:
      abstract_params: ShapeDtypeStructs; one without a sharding goes to the
        first device.
      step: None: the best, or the latest where none has the best metric.

    Raises:
      Refusal: `step` is absent or bad; the format or the tree is another;
        there is no good step.
    """
    self.wait()
    if step is not None:
      self._folders.require(step)
    while step is None:
      best = self.best_step()
      step = self._folders.agreed(self.latest_step() if best is None else best)
      if step is None:
        raise Refusal(f"{self._folders.path} has no good step; train first")
      step = step if self._is_good(step) else None
    trees, saved = (
      {"params": abstract_params},
      self._manager.item_metadata(step),
    )
    if "ema" in saved.keys():
      trees["ema"] = abstract_average(saved["ema"].tree, abstract_params)
    restored, meta = self._restore_items(step, trees)
    return averaged(restored["params"], restored.get("ema")), meta

  def steps(self) -> list[int]:
    """Those that are there, ascending; not one that is being saved."""
    return self._folders.steps()

  def latest_step(self) -> int | None:
    return next(reversed(self.steps()), None)

  def best_step(self) -> int | None:
    """The step with the best value; of equal ones the latest."""
    best = self._best_so_far({})
    return None if best is None else int(best["step"])

  def metrics(self, step: int) -> Mapping[str, float]:
    """What the evaluation of a saved step gave, the finite values; or none."""
    return self._manager.metrics(step) or {}

  def _best_so_far(
    self, unsaved: Mapping[int, Mapping[str, float]]
  ) -> dict[str, int | float] | None:
    """Step and value of the best of what is saved and of `unsaved`."""
    known = {step: self.metrics(step) for step in self.steps()} | dict(unsaved)
    sign = 1 if self._best_mode == "max" else -1
    values = {
      step: (sign * of_step[self._best_metric], step)
      for step, of_step in known.items()
      if self._best_metric in of_step
    }
    best = max(values, key=values.__getitem__, default=None)
    if best is None:
      return None
    return {"step": best, "value": known[best][self._best_metric]}

  def wait(self) -> None:
    """Blocks until the last save is complete; raises what went wrong in it."""
    self.errors.wait(self._manager.wait_until_finished)
    if self._saving is not None and self._process == 0:
      checksums.seal(self._folders.of(self._saving))
      self._folders.clear_retired()
    self._saving = None

  def close(self) -> None:
    """Waits, and lets go of threads; the object is of no use afterwards."""
    # After an error the checkpointer would wait for other processes.
    self.wait()
    self._manager.close()

  def _open_manager(self, keep_last: int) -> ocp.CheckpointManager:
    score = self._score if self._best_metric else None
    policies: list[checkpoint_managers.PreservationPolicy] = [
      checkpoint_managers.LatestN(keep_last)
    ]
    if score is not None:
      policies.append(
        checkpoint_managers.BestN(
          n=1,
          get_metric_fn=score,
          reverse=self._best_mode == "min",
          keep_checkpoints_without_metrics=False,
        )
      )
    options = ocp.CheckpointManagerOptions(
      best_fn=score,
      best_mode=self._best_mode,
      preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
      todelete_subdir=step_folders.RETIRED,
      cleanup_tmp_directories=self._folders.writable,
      create=self._folders.writable,
      # A reader must not stumble over the metrics of a bad step.
      lightweight_initialize=not self._folders.writable,
      async_options=ocp.AsyncOptions(
        barrier_sync_fn=self._barrier if self._processes > 1 else None,
        post_finalization_callback=self._before_commit,
      ),
    )
    handlers = {name: _handler(self.errors) for name in TREES}
    return ocp.CheckpointManager(
      self._folders.path,
      options=options,
      item_handlers={**handlers, "meta": ocp.JsonCheckpointHandler()},
    )

  def _score(self, scores: Mapping[str, float]) -> float:
    worst = -math.inf if self._best_mode == "max" else math.inf
    return scores.get(self._best_metric, worst)

  def _scores(
    self, step: int, metrics: Mapping[str, float] | None
  ) -> dict[str, float] | None:
    """What is stored beside the step: the finite metrics."""
    if not self._best_metric:
      return None
    if metrics is not None and self._best_metric not in metrics:
      raise Refusal(
        f"train.best_metric={self._best_metric!r} is not among the metrics of "
        f"step {step}: {', '.join(sorted(metrics)) or 'none'}"
      )
    # Empty rather than None, of which Orbax would warn at every save.
    values = {name: float(value) for name, value in (metrics or {}).items()}
    return {name: v for name, v in values.items() if math.isfinite(v)}

  def _barrier(self, *, key: str, timeout_ms: int) -> None:
    """Orbax's barrier between processes, in its background thread."""
    # Before this one every process has closed its own files; after it the
    # first process merges their index and commits.
    if "async_write_complete" in key and self._process:
      with self.errors.kept():
        folder = self._folders.being_written(self._saving)
        checksums.write(folder, self._process, self._processes)
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)

  def _before_commit(self) -> None:
    """Called by Orbax in the first process, just before the renaming."""
    with self.errors.kept():
      folder = self._folders.being_written(self._saving)
      checksums.write(folder, 0, self._processes)
      checksums.check_complete(folder, self._processes)

  def _is_good(self, step: int) -> bool:
    if self._folders.verify(step):
      return True
    self._manager.reload()
    return False

  def _restore_state(
    self, step: int, abstract: TrainState
  ) -> tuple[TrainState, dict[str, Any]]:
    restored, meta = self._restore_items(step, abstract.trees())
    number = jax.make_array_from_callback(
      (), placed(abstract.step).sharding, lambda _: np.asarray(step, np.int32)
    )
    return dataclasses.replace(abstract, step=number, **restored), meta

  def _restore_items(
    self, step: int, trees: Mapping[str, Any]
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    meta = self._manager.restore(
      step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
    )["meta"]
    if meta["format"] != CHECKPOINT_FORMAT:
      raise Refusal(
        f"{self._folders.of(step)} has the format {meta['format']}, this code "
        f"reads {CHECKPOINT_FORMAT}; use the version that wrote it, or another "
        "--workdir"
      )
    saved = self._manager.item_metadata(step)
    for name, tree in trees.items():
      stored = saved[name].tree if name in saved.keys() else {}
      difference = tree_difference(name, stored, tree)
      if difference is not None:
        raise Refusal(
          f"{self._folders.of(step)} holds another state than this run's: "
          f"{difference}; use the config that it was saved with, or another "
          "--workdir"
        )
    arguments = {
      name: ocp.args.StandardRestore(jax.tree.map(placed, tree))
      for name, tree in trees.items()
    }
    restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
    return {name: restored[name] for name in trees}, meta


def _handler(errors: BackgroundErrors) -> ocp.StandardCheckpointHandler:
  """Writes a tree; what fails in the background is known at once."""
  handler = ocp.StandardCheckpointHandler()
  # A class of its own would need classes of arguments of its own.
  watched: Any = errors.watching(handler.async_save)
  handler.async_save = watched
  return handler
