"""Training, in reading order: what is trained, from where, step by step."""

import contextlib
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from data.collate import abstract_batch
from data.pipeline import Pipeline, train_batches
from train import compiled_steps, validate
from train.build_step import StepProgram, build_step
from train.checkpoint import Checkpoints
from train.cli import machine_errors, signals
from train.cli.signals import Saving
from train.config import Config
from train.costs import plan
from train.errors import refusing
from train.evaluators.suite import Suite, write_samples
from train.mesh import (
  MeshConfig,
  batch_sharding,
  check_batch_size,
  make_mesh,
  sharding_rules,
)
from train.optim import OptimConfig, describe_schedule_change
from train.progress import profiler
from train.progress.profiler import Profiler
from train.progress.step_reader import RunTotals, StepReader
from train.progress.throughput import train_step_flops
from train.setting_names import naming
from train.setup import datasets, target_check
from train.setup.initial_params import first_params
from train.setup.task import Task, build_task, record_task
from train.state import TrainState, create_state, state_shardings
from train.workdir import data_position, recorded_config, run_lock
from train.workdir.metrics_file import MetricsWriter, read_rows


def run(config: Config, folder: str, profile: str = "") -> dict[str, float]:
  """Trains until `train.steps`, from the newest good checkpoint in `folder`.

  Gives the last evaluation, in the first process; nothing in the others.

  Args:
    profile: "FIRST:LAST", steps that are traced into `folder`/profile.

  Raises:
    Refusal: the configuration cannot be run; nothing was compiled.
    NonFiniteLoss: the training diverged.
    SystemExit: after SIGTERM (143) or SIGINT (130), when the state is saved.
  """
  # Before anything is read there: two runs would each find a fresh folder.
  with signals.saving() as saving, run_lock.held(Path(folder)):
    return _run(config, Path(folder), saving, profile)


def _run(
  config: Config, folder: Path, saving: Saving, profile: str
) -> dict[str, float]:
  with refusing():
    steps = profiler.parse_steps(profile, config.train.steps)
    this = build_run(config, folder)
    check_step(this)
  chief = jax.process_index() == 0
  with (
    jax.set_mesh(this.mesh),
    Checkpoints(
      this.folder / "checkpoints",
      keep_last=config.train.keep_last,
      best_metric=validate.best_metric(validate.flatten(config)),
      best_mode=config.train.best_mode,
    ) as checkpoints,
    contextlib.closing(MetricsWriter(this.folder, chief)) as writer,
    contextlib.closing(Profiler(steps, this.folder / "profile")) as tracer,
  ):
    if (checkpoints.latest_step() or 0) < config.train.steps:
      compile_step(this)
    this, state, progress = begin(this, checkpoints)
    writer.cut(progress.step if progress.step else -1)
    if progress.step < config.train.steps:
      train(this, state, progress, checkpoints, writer, saving, tracer)
  if saving.received:
    logging.warning("stopped: all is saved; run again for its figures")
    raise SystemExit(saving.status)
  return report(this) if chief else {}


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run is made of, checked and ready to compile.

  Attributes:
    changes: what differs from the configuration that ran here before.
    step: the program of a step, compiled for the shapes of its batches.
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
  program = build_step(config, task.module, mesh)
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
  tx, rules = this.program.tx, this.task.rules
  return create_state(module, tx, this.mesh, rules, key, params)


def check_step(this: Run) -> None:
  """Traces the step: what the model itself refuses, it refuses now."""
  batch = abstract_batch(this.pipeline.shapes[-1], this.pipeline.batch_size)
  machine_errors.check_batch("train.batch_size", batch)
  names = {"attention": "model.attention", "remat": "model.remat"}
  with naming(**names), jax.set_mesh(this.mesh):
    this.step.check(this.program.state, batch)


def compile_step(this: Run) -> None:
  """Compiles for the longest batches; refuses what no memory holds."""
  rows, shape = this.pipeline.batch_size, this.pipeline.shapes[-1]
  packed = this.pipeline.packing == "pack"
  plan.compile_step(
    this.step,
    this.program.state,
    abstract_batch(shape, rows),
    config=this.config,
    mesh=this.mesh,
    pairs=rows * (this.pipeline.fill().pairs_per_row if packed else 1),
  )


def begin(
  this: Run, checkpoints: Checkpoints
) -> tuple[Run, TrainState, RunTotals]:
  """The newest good state or a first one; the folder then says what runs.

  The run's batches go on where those of the state ended.
  """
  restored = checkpoints.restore(this.program.state)
  progress = RunTotals()
  if restored is None:
    with refusing():
      state = first_state(this)
  else:
    state, meta = restored
    progress = RunTotals(**meta["progress"])
    restart = this.config.data.restart_epoch
    pipeline = data_position.resume(
      this.pipeline, meta["data"], progress.step, restart
    )
    this = dataclasses.replace(this, pipeline=pipeline)
  if jax.process_index() == 0:
    announce(this, progress.step)
  return this, state, progress


def announce(this: Run, step: int) -> None:
  """Records what runs from `step` on, and says it."""
  steps = this.config.train.steps
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
    if told := describe_schedule_change(optim, old, steps, step, width):
      logging.warning("%s", told)


def train(
  this: Run,
  state: TrainState,
  progress: RunTotals,
  checkpoints: Checkpoints,
  writer: MetricsWriter,
  saving: Saving,
  tracer: Profiler,
) -> None:
  """Step n done, evaluated if due, saved with its metrics; then step n + 1."""
  config, model = this.config, this.task.module.config
  steps, size = config.train.steps, config.train.batch_size
  batches = train_batches(
    this.pipeline,
    progress.step,
    steps,
    sharding=batch_sharding(this.mesh, this.task.rules),
    workers=config.data.workers,
  )
  told = functools.partial(explain, this, checkpoints)
  reader = StepReader(
    progress, total=steps, log_every=config.train.log_every_steps, explain=told
  )
  if jax.process_count() > 1:
    # They stop together: none may end at once while others wait for its step.
    multihost_utils.sync_global_devices("steps_begin")
    saving.begin()
  with contextlib.closing(reader), contextlib.closing(batches):
    waited = reader.speed.waiting(batches, reader.idle_since)
    for step, batch in enumerate(waited, start=progress.step + 1):
      tracer.begin(step)
      with reader.compiling(this.step.is_new(batch)):
        state, metrics = this.step(state, batch)
      tracer.end(step, metrics)
      saving.begin()
      # Reading a step's metrics waits for it: read those of the one before.
      write(writer, step - 1, reader.read())
      flops = train_step_flops(model, size, *compiled_steps.shape(batch))
      reader.put(step, metrics, flops)
      evaluate = due(step, config.train.eval_every_steps, steps)
      save = due(step, config.train.checkpoint_every_steps, steps)
      stop = asked_to_stop(saving, step)
      if not (evaluate or save or stop):
        continue
      row, measured = reader.read(), None
      with reader.speed.pause():
        if evaluate:
          measured, results = this.suite.run(state.params)
          write_samples(this.folder, step, results, this.suite.names)
          reader.say(step, measured)
        # The row comes first: a kill after the save must not lose it.
        write(writer, step, row | (measured or {}))
        checkpoints.save(step, state, meta(this, progress), measured)
      if jax.process_count() == 1:
        # Heard while it was measured; several would have to agree on it.
        stop = asked_to_stop(saving, step)
      if stop and step < steps:
        checkpoints.wait()
        logging.warning("stopped: saved step %d; run again to go on", step)
        raise SystemExit(saving.status)


def explain(this: Run, checkpoints: Checkpoints, step: int) -> str:
  """What a step saw that was not finite, and what to do."""
  checkpoints.wait()
  members = this.pipeline.members(step - 1)
  return (
    f"its batch held the pairs {members} of {this.config.data.train} (the "
    f"first is {this.pipeline.pairs.locate(members[0])}); the last good "
    f"checkpoint is step {checkpoints.latest_step()} (none: the start); lower "
    "optim.lr, or fix the data"
  )


def write(writer: MetricsWriter, step: int, row: dict[str, float]) -> None:
  """Writes the row of a step, if it has one."""
  if row:
    writer.write(step, row)


def due(step: int, every: int, last: int) -> bool:
  """Whether something is due after `step`: always after the last one."""
  return step == last or bool(every and step % every == 0)


def meta(this: Run, progress: RunTotals) -> dict[str, Any]:
  """What a checkpoint says about itself."""
  return {
    "seed": this.config.seed,
    "config": recorded_config.fingerprint(this.config),
    "data": data_position.describe(this.pipeline, progress.step),
    "progress": dataclasses.asdict(progress),
  }


def asked_to_stop(saving: Saving, step: int) -> bool:
  """Whether a signal has come, which several processes agree on at a step."""
  if jax.process_count() > 1:
    return multihost_utils.reached_preemption_sync_point(step)
  return bool(saving.received)


def report(this: Run) -> dict[str, float]:
  """Prints the last evaluation of a finished run."""
  rows = read_rows(this.folder / "metrics.jsonl")
  last = rows[-1]
  done, steps = last["step"], this.config.train.steps
  past = f", which is past train.steps={steps}" if done > steps else ""
  print(f"finished at step {done} of {this.folder}{past}")
  # JSON has null for what was not finite.
  measured = {
    k: math.nan if v is None else v
    for k, v in last.items()
    if k.startswith("eval/")
  }
  if not measured:
    # Steps were taken away from a run that had done them.
    print("not evaluated there: use --mode=eval, or raise train.steps")
  for name, value in measured.items():
    print(f"{name} {value:.4f}")
  return measured
