"""Training, in reading order: what is trained, from where, step by step."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import logging

from data.pipeline import train_batches
from train import compiled_steps, start
from train.checkpoint import Checkpoints
from train.cli import signals
from train.cli.signals import Saving
from train.config import Config
from train.errors import refusing
from train.evaluators import samples
from train.evaluators.suite import Result
from train.mesh import batch_sharding
from train.optim.ema import averaged
from train.processes import agreement, heartbeat
from train.processes.stopping import Stopped, Stopping
from train.progress import goodput, patience, profiler
from train.progress.goodput import Goodput
from train.progress.patience import Patience
from train.progress.profiler import Profiler
from train.progress.step_reader import RunTotals, StepReader
from train.progress.throughput import train_step_flops
from train.start import Run
from train.state import TrainState
from train.workdir import (
  data_position,
  json_files,
  recorded_config,
  run_lock,
)
from train.workdir.metrics_file import MetricsWriter, read_rows


def run(
  config: Config, folder: str, profile: str = "", began: float | None = None
) -> dict[str, float]:
  """Trains until `train.steps`, from the newest good checkpoint in `folder`.

  With `train.patience_evaluations` it ends where the best metric no longer
  improves; the same command then prints what a finished run does.

  Gives the last evaluation, in the first process; nothing in the others.

  Args:
    profile: "FIRST:LAST", steps that are traced into `folder`/profile.
    began: when the command did, as `time.time` has it; None: now.

  Raises:
    Refusal: the configuration cannot be run; nothing was compiled.
    NonFiniteLoss: the training diverged.
    SystemExit: after SIGTERM (143) or SIGINT (130), when the state is saved.
  """
  times = Goodput(Path(folder), time.time() if began is None else began)
  # Before anything is read there: two runs would each find a fresh folder.
  with signals.saving() as saving, run_lock.held(Path(folder)), times:
    return _run(config, Path(folder), saving, profile, times)


def _run(
  config: Config, folder: Path, saving: Saving, profile: str, times: Goodput
) -> dict[str, float]:
  with refusing():
    steps = profiler.parse_steps(profile, config.train.steps)
    this = start.build_run(config, folder)
    start.check_step(this)
  chief = jax.process_index() == 0
  rule = patience.configured(config, this.folder)
  with (
    jax.set_mesh(this.mesh),
    start.open_checkpoints(this) as checkpoints,
    contextlib.closing(MetricsWriter(this.folder, chief)) as writer,
    contextlib.closing(Profiler(steps, this.folder / "profile")) as tracer,
  ):
    # One host may see another's folders late, and all shall do alike.
    latest = agreement.on_chief(
      "looking for checkpoints", lambda: checkpoints.latest_step() or 0
    )
    if latest < config.train.steps and not rule.is_spent(latest):
      with times.spent("compile"):
        start.compile_step(this)
    this, state, progress, owed = start.begin(this, checkpoints, rule.is_spent)
    # The row of a step whose evaluation is owed is not written yet.
    writer.cut((progress.step - (owed is not None)) or -1)
    training = Training(
      this,
      state,
      progress,
      checkpoints,
      patience=rule,
      writer=writer,
      stopping=Stopping(saving),
      saving=saving,
      tracer=tracer,
      times=times,
    )
    done = progress.step >= config.train.steps or rule.is_spent(progress.step)
    if not done or owed is not None:
      times.begin(progress.step)
      training.run(owed)
      times.end()
  if saving.received:
    logging.warning("stopped: all is saved; run again for its figures")
    raise SystemExit(saving.status)
  return report(this, rule) if chief else {}


@dataclasses.dataclass
class Training:
  """The loop: step n done, evaluated if due, saved with its metrics."""

  this: Run
  state: TrainState
  progress: RunTotals
  checkpoints: Checkpoints
  _: dataclasses.KW_ONLY
  patience: Patience
  writer: MetricsWriter
  stopping: Stopping
  saving: Saving
  tracer: Profiler
  times: Goodput
  ended: bool = False

  def run(self, owed: dict[str, float] | None = None) -> None:
    """From the state's step to the last, or until patience is spent.

    Args:
      owed: the row of the state's step, which was interrupted while it was
        evaluated; None: nothing is owed.
    """
    this, config, progress = self.this, self.this.config, self.progress
    self.reader = StepReader(
      progress,
      total=config.train.steps,
      log_every=config.train.log_every_steps,
      explain=functools.partial(explain, this, self.checkpoints),
      waited=functools.partial(self.times.move, "data"),
    )
    self.stopping.begin()
    with contextlib.closing(self.reader) as reader:
      if owed is not None:
        self._conclude(progress.step, owed, evaluate=True)
        self.checkpoints.wait()
        start.drop_interrupted(this)
        if self.ended:
          return
      batches = train_batches(
        this.pipeline,
        progress.step,
        config.train.steps,
        sharding=batch_sharding(this.mesh, this.task.rules),
        workers=config.data.workers,
      )
      with contextlib.closing(batches), self.times.spent("step"):
        waited = reader.speed.waiting(batches, reader.idle_since)
        for step, batch in enumerate(waited, start=progress.step + 1):
          self._step(step, batch)
          if self.ended:
            break

  def _step(self, step: int, batch: Mapping[str, jax.Array]) -> None:
    config, reader = self.this.config, self.reader
    if self.this.step.is_new(batch):
      self._compile(step, batch)
    self.tracer.begin(step)
    self.state, metrics = self.this.step(self.state, batch)
    heartbeat.at_step(step)
    self.tracer.end(step, metrics)
    self.saving.begin()
    # A save that has failed needs no further steps.
    self.checkpoints.errors.check()
    # Reading a step's metrics waits for it: read those of the one before.
    self._write(step - 1, reader.read())
    model, size = self.this.task.module.config, config.train.batch_size
    # R-Drop computes each row twice.
    size *= 2 if config.train.r_drop else 1
    flops = train_step_flops(model, size, *compiled_steps.shape(batch))
    reader.put(step, metrics, flops)
    evaluate = due(step, config.train.eval_every_steps, config.train.steps)
    save = due(step, config.train.checkpoint_every_steps, config.train.steps)
    stop = self.stopping.asked()
    if evaluate or save or stop:
      row = reader.read()
      with reader.speed.pause():
        # A signal does not wait for an evaluation that has not begun.
        if evaluate and stop:
          self._interrupt(step, row)
        self._conclude(step, row, evaluate)
      if jax.process_count() == 1:
        # Heard while it was saved; several would have to agree on it.
        stop = self.stopping.asked()
      if stop and step < config.train.steps and not self.ended:
        self._leave(step)

  def _compile(self, step: int, batch: Mapping[str, jax.Array]) -> None:
    """The program of a bucket that comes for the first time."""
    compile_it = functools.partial(self.this.step.compile, self.state, batch)
    with self.reader.speed.pause(), self.times.spent("compile"):
      try:
        self.stopping.compiling(compile_it)
        return
      except Stopped:
        self._write(step - 1, self.reader.read())
        if step > 1:
          self._save(step - 1, None)
    self._leave(step - 1)

  def _conclude(self, step: int, row: dict[str, float], evaluate: bool) -> None:
    """A step's evaluation, row and checkpoint."""
    measured = None
    if evaluate:
      try:
        with self.times.spent("evaluation"):
          suite, stopping = self.this.suite, self.stopping
          params = averaged(self.state.params, self.state.ema)
          measured, results = suite.run(
            params, check=stopping.check, call=stopping.call
          )
          _keep_texts(self.this.folder, step, results)
      except Stopped:
        self._interrupt(step, row)
      self.reader.say(step, measured)
    # The row comes first: a kill after the save must not lose it.
    self._write(step, row | (measured or {}))
    self._save(step, measured)
    if evaluate:
      self.ended = self.patience.is_spent(step)

  def _write(self, step: int, row: dict[str, float]) -> None:
    """Writes the row of a step, if it has one."""
    if row:
      self.writer.write(step, row | self.times.row())

  def _save(self, step: int, measured: dict[str, float] | None) -> None:
    with self.times.spent("save"):
      about = meta(self.this, self.progress)
      state = self.this.saved_part(self.state)
      self.checkpoints.save(step, state, about, measured)
      self.times.saved(step)

  def _interrupt(self, step: int, row: dict[str, float]) -> NoReturn:
    """Leaves a step whose evaluation is still owed."""
    with self.times.spent("save"):
      about = meta(self.this, self.progress) | {"row": row}
      start.save_interrupted(self.this, step, self.state, about)
      self.times.saved(step)
    self._leave(step)

  def _leave(self, step: int) -> NoReturn:
    """Ends with all saved."""
    with self.times.spent("save"):
      self.checkpoints.wait()
    self.times.end(self.saving.status)
    sentence = f"stopped: saved step {step}; run again to go on"
    if self.stopping.abandoned:
      # The thread that compiles would be waited for.
      self.writer.close()
      heartbeat.done(wait=True)
      signals.end(self.saving.status, sentence)
    logging.warning("%s", sentence)
    raise SystemExit(self.saving.status)


def _keep_texts(folder: Path, step: int, results: Mapping[str, Result]) -> None:
  """samples/<set>-<step>.jsonl, and how metrics of text are computed."""
  texts = {name: result.samples for name, result in results.items()}
  samples.write(folder / samples.TRAINING, step, texts)
  signatures = {}
  for result in results.values():
    signatures |= samples.signatures(result.scores)
  if signatures and jax.process_index() == 0:
    json_files.write_json(folder / "signatures.json", signatures)


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
    **({"base": dict(this.base)} if this.base else {}),
  }


def report(this: Run, rule: Patience) -> dict[str, float]:
  """Prints the last evaluation of a finished run."""
  rows = read_rows(this.folder / "metrics.jsonl")
  last = rows[-1]
  done, steps = last["step"], this.config.train.steps
  past = f", which is past train.steps={steps}" if done > steps else ""
  print(f"finished at step {done} of {this.folder}{past}")
  if done < steps and (why := rule.explain(done)):
    print(f"ended early: {why}")
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
  goodput.report(this.folder)
  return measured
