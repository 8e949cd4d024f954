"""The start of a run: what it is made of, checked, compiled, restored."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from data.collate import abstract_batch
from data.pipeline import Pipeline
from encdec.adapters import LoraConfig
from train import compiled_steps, validate
from train.build_step import StepProgram, build_step
from train.checkpoint import Checkpoints
from train.cli import machine_errors
from train.config import Config
from train.costs import plan
from train.errors import Refusal, refusing
from train.evaluators.suite import Suite
from train.mesh import MeshConfig, check_batch_size, make_mesh, sharding_rules
from train.optim.schedules import describe_schedule_change
from train.optim.settings import OptimConfig
from train.processes import agreement
from train.progress.step_reader import RunTotals
from train.setting_names import naming
from train.setup import base_weights, datasets, target_check
from train.setup.initial_params import first_params
from train.setup.task import Task, build_task, record_task
from train.state import TrainState, create_state, state_shardings
from train.workdir import data_position, recorded_config

# The folder of a state whose evaluation a signal has interrupted.
INTERRUPTED = "interrupted"


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run is made of, checked and ready to compile.

  Attributes:
    changes: what differs from the configuration that ran here before.
    step: the program of a step, compiled for the shapes of its batches.
    base: see `base_weights.checksums`; known when the state is.
  """

  config: Config
  folder: Path
  changes: dict[str, list]
  task: Task
  mesh: Mesh
  pipeline: Pipeline
  suite: Suite
  program: StepProgram
  step: compiled_steps.CompiledSteps
  base: Mapping[str, int] = dataclasses.field(default_factory=dict)

  @property
  def lora(self) -> LoraConfig | None:
    return self.task.module.config.lora

  def saved_part(self, state: TrainState) -> TrainState:
    """What a checkpoint holds of a state, without the base of adapters."""
    params = base_weights.saved_part(state.params, self.lora)
    return dataclasses.replace(state, params=params)


def build_run(config: Config, folder: Path) -> Run:
  """Finds whatever is wrong before anything compiles."""
  validate.check_values(config)
  changes = recorded_config.check_same(config, folder)
  rules = sharding_rules(config)
  mesh = make_mesh(MeshConfig(**config.mesh.to_dict()))
  batch_size, parts = config.train.batch_size, config.train.accumulate_steps
  check_batch_size("train.batch_size", batch_size, parts, mesh, rules)
  datasets.check(config, folder)
  task = build_task(config, folder, weights=True).on(mesh)
  pad_id = task.batch_tokens.target_pad
  program = build_step(config, task.module, mesh, pad_id)
  pairs = datasets.train_pairs(config, task, folder)
  pipeline = datasets.train_pipeline(config, pairs, folder)
  sets = datasets.held_out(config, task, folder, config.data.eval)
  if jax.process_index() == 0 and not (folder / "config.json").exists():
    target_check.report(config, task, pairs)
    datasets.warn_of_duplicates(config, pairs, sets, folder)
  shardings = state_shardings(program.state)
  return Run(
    config=config,
    folder=folder,
    changes=changes,
    task=task,
    mesh=mesh,
    pipeline=pipeline,
    suite=Suite(config, task, mesh, shardings.params, sets),
    program=program,
    step=compiled_steps.CompiledSteps(program.step, pipeline.shapes),
  )


def first_state(this: Run) -> TrainState:
  """The state of step 0: weights that are read, or drawn."""
  config, module = this.config, this.task.module
  params = first_params(config, module)
  key = jax.random.key(config.seed)
  optimizer, rules = this.program.optimizer, this.task.rules
  return create_state(module, optimizer, this.mesh, rules, key, params)


def check_step(this: Run) -> None:
  """Traces the step: what the model itself refuses, it refuses now."""
  batch = _longest_batch(this)
  machine_errors.check_batch("train.batch_size", batch)
  names = {"attention": "model.attention", "remat": "model.remat"}
  with naming(**names), jax.set_mesh(this.mesh):
    this.step.check(this.program.state, batch)


def _longest_batch(this: Run) -> dict[str, jax.ShapeDtypeStruct]:
  types = bool(this.config.data.source_types)
  shape, rows = this.pipeline.shapes[-1], this.pipeline.batch_size
  return abstract_batch(shape, rows, types=types)


def compile_step(this: Run) -> None:
  """Compiles for the longest batches; refuses what no memory holds."""
  rows = this.pipeline.batch_size
  packed = this.pipeline.packing == "pack"
  plan.compile_step(
    this.step,
    this.program.state,
    _longest_batch(this),
    config=this.config,
    mesh=this.mesh,
    pairs=rows * (this.pipeline.fill().pairs_per_row if packed else 1),
  )


def open_checkpoints(this: Run) -> Checkpoints:
  """The run's checkpoints, to read and to write."""
  return Checkpoints(
    this.folder / "checkpoints",
    keep_last=this.config.train.keep_last,
    best_metric=validate.best_metric(validate.flatten(this.config)),
    best_mode=this.config.train.best_mode,
  )


def begin(
  this: Run,
  checkpoints: Checkpoints,
  is_last: Callable[[int], bool] = lambda step: False,
) -> tuple[Run, TrainState, RunTotals, dict[str, float] | None]:
  """The newest good state or a first one; the folder then says what runs.

  The run's batches go on where those of the state ended. Last comes the row of
  the state's step where its evaluation is still owed, else None.

  Args:
    is_last: whether no step shall follow this one, of those that are left;
      all processes call it.
  """
  restored = _restore_interrupted(this, checkpoints.latest_step())
  if restored is None:
    restored = checkpoints.restore(this.saved_part(this.program.state))
  progress, owed = RunTotals(), None
  if restored is None:
    with refusing():
      state = first_state(this)
  else:
    state, meta = restored
    with refusing():
      params = base_weights.completed(
        state.params,
        meta,
        this.config,
        this.task.module,
        this.mesh,
        this.program.state.params,
      )
    state = dataclasses.replace(state, params=params)
    progress, owed = RunTotals(**meta["progress"]), meta.get("row")
    restart = this.config.data.restart_epoch
    pipeline = data_position.resume(
      this.pipeline, meta["data"], progress.step, restart
    )
    this = dataclasses.replace(this, pipeline=pipeline)
  ended = is_last(progress.step)
  base = base_weights.checksums(state.params, this.lora, this.mesh)
  this = dataclasses.replace(this, base=base)
  if jax.process_index() == 0:
    announce(this, progress.step, ended)
  return this, state, progress, owed


def save_interrupted(
  this: Run, step: int, state: TrainState, meta: Mapping[str, Any]
) -> None:
  """Keeps a state until it is evaluated, and saved with what that gives.

  Args:
    meta: of a checkpoint, with the step's `row`.
  """
  with Checkpoints(this.folder / INTERRUPTED) as interrupted:
    interrupted.save(step, this.saved_part(state), meta, None)


def drop_interrupted(this: Run) -> None:
  """Forgets it: the state is evaluated and saved, or a newer one is.

  What was set aside as damaged stays. All processes call it: none may still
  read there.
  """
  folder = this.folder / INTERRUPTED

  def remove() -> None:
    for step in folder.glob("[0-9]*"):
      shutil.rmtree(step, ignore_errors=True)
    with contextlib.suppress(OSError):  # It is not empty, or is gone.
      folder.rmdir()

  multihost_utils.sync_global_devices("interrupted_read")
  agreement.on_chief(f"removing {folder}", remove)


def _restore_interrupted(
  this: Run, latest: int | None
) -> tuple[TrainState, dict[str, Any]] | None:
  """A good state that is newer than the latest checkpoint, with its meta."""
  folder = this.folder / INTERRUPTED
  # Hosts may see another's folders late: the first one's listing decides.
  if not agreement.on_chief(f"looking for {folder}", folder.is_dir):
    return None
  restored = None
  with Checkpoints(folder) as interrupted:
    newest = interrupted.latest_step() or 0
    newer = agreement.on_chief(
      f"reading {folder}", lambda: newest * (newest > (latest or 0))
    )
    if newer:
      try:
        restored = interrupted.restore(this.saved_part(this.program.state))
      except Refusal:
        # One that is damaged was set aside. Another refusal, such as of an
        # older format, is the user's to hear: what was saved stays.
        if agreement.on_chief(f"reading {folder}", interrupted.latest_step):
          raise
  if not newer:
    drop_interrupted(this)
  return restored


def announce(this: Run, step: int, ended: bool = False) -> None:
  """Records what runs from `step` on, and says it."""
  steps = this.config.train.steps
  if ended:
    logging.info("step %d was the last, of train.steps=%d", step, steps)
    return
  if step >= steps:
    # What has changed is not recorded: nothing runs under it.
    logging.info(
      "step %d is done already, of train.steps=%d: no step is left", step, steps
    )
    return
  record_task(this.task, this.folder)
  recorded_config.record(this.config, this.folder, this.changes, step)
  logging.info("special tokens:\n%s", this.task.tokens.table())
  this.task.generation_settings(this.config).tell()
  logging.info("batches: %s", datasets.describe_batches(this.pipeline))
  logging.info("from step %d to %d", step, steps)
  if step and "train.steps" in this.changes:
    optim = OptimConfig(**this.config.optim.to_dict())
    old, width = this.changes["train.steps"][0], this.task.width
    for pattern, own in optim.by_pattern().items():
      if told := describe_schedule_change(own, old, steps, step, width):
        where = f"optim.groups: {pattern!r}: " if pattern else ""
        logging.warning("%s%s", where, told)
