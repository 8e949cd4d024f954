"""Prepare, inspect, train, evaluate...: flags, and a table of modes."""

import os
import signal

# Not in the processes that it starts, which end with it.
if __name__ == "__main__":

  def stop(number: int, _: object) -> None:
    """Until `signals`, which has imports of its own, watches."""
    name = signal.Signals(number).name
    try:
      os.write(2, f"stopped by {name}: nothing was begun\n".encode())
    finally:
      os._exit(128 + number)

  signal.signal(signal.SIGINT, stop)
  signal.signal(signal.SIGTERM, stop)

from train.cli import signals

if __name__ == "__main__":
  signals.watch()

import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections.config_flags import config_flags

from train.cli import command_line, machine_errors
from train.errors import Failure
from train.processes import agreement, heartbeat, join, logs

# Where config_flags looks for overrides.
ARGUMENTS: list[str] = []
CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "A file of configs/, with :variant.",
  lock_config=True,
  sys_argv=ARGUMENTS,
)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run.")
MODE = flags.DEFINE_string(
  "mode",
  "train",
  "One of prepare, inspect, train, eval, predict, export.",
)
STEP = flags.DEFINE_integer(
  "step", -1, "Checkpoint to read; -1: the best, else the latest."
)
INPUT = flags.DEFINE_string("input", "", "predict: a file or a URI.")
OUTPUT = flags.DEFINE_string("output", "", "predict: .jsonl; export: a folder.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "predict: replace an output.")
PAIRS = flags.DEFINE_bool(
  "training_pairs",
  False,
  "predict: name source and prediction as a record that is trained on; train "
  "with data.on_bad_record=skip where sources are empty.",
)
PREDICTIONS = flags.DEFINE_string(
  "predictions",
  "",
  "eval: score a .jsonl, or SET=.jsonl, in place of a checkpoint.",
)
ADAPTERS = flags.DEFINE_bool(
  "adapters", False, "export: the adapters alone, a folder for PEFT."
)
PUSH = flags.DEFINE_string("push_to_hub", "", "export: also to this Hub id.")
PROFILE = flags.DEFINE_string(
  "profile", "", "train: trace the steps FIRST:LAST into <workdir>/profile."
)
COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0.")
PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Of this process.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "Of the whole run.")


def prepare() -> None:
  from train.modes import prepare

  prepare.run(CONFIG.value, WORKDIR.value)


def inspect() -> None:
  from train.modes import inspect

  inspect.run(CONFIG.value, WORKDIR.value)


def train() -> None:
  from train import loop

  loop.run(CONFIG.value, WORKDIR.value, PROFILE.value, signals.BEGAN)


def evaluate() -> None:
  if PREDICTIONS.value:
    from train.modes import score

    score.run(CONFIG.value, PREDICTIONS.value)
    return
  from train.modes import evaluate

  evaluate.run(CONFIG.value, WORKDIR.value, step=STEP.value)


def predict() -> None:
  from train.modes import predict

  predict.run(
    CONFIG.value,
    WORKDIR.value,
    step=STEP.value,
    source=INPUT.value,
    output=OUTPUT.value,
    overwrite=OVERWRITE.value,
    training_pairs=PAIRS.value,
  )


def export() -> None:
  from train.modes import export

  export.run(
    CONFIG.value,
    WORKDIR.value,
    step=STEP.value,
    output=OUTPUT.value,
    push_to_hub=PUSH.value,
    adapters=ADAPTERS.value,
  )


# Which modes use a flag; the others refuse it.
OF_MODES = {
  "step": ("eval", "predict", "export"),
  "input": ("predict",),
  "output": ("predict", "export"),
  "overwrite": ("predict",),
  "training_pairs": ("predict",),
  "predictions": ("eval",),
  "push_to_hub": ("export",),
  "adapters": ("export",),
  "profile": ("train",),
}
MODES: dict[str, Callable[[], None]] = {
  "train": train,
  "prepare": prepare,
  "inspect": inspect,
  "eval": evaluate,
  "predict": predict,
  "export": export,
}
# What a signal leaves behind, as the last sentence says it.
KEPT = {
  "train": "no step was done; what was prepared is kept, and the same command "
  "goes on",
  "prepare": "what was prepared is kept, and the same command goes on",
  "inspect": "what was prepared is kept, and the same command goes on",
  "eval": "nothing was measured to the end; run the same command again",
  "predict": "what was predicted is kept, and the same command goes on",
  "export": "--output may not be complete; run the same command again",
}


def parse(argv: list[str]) -> list[str]:
  """Parses the command line, and checks what it says of this command."""

  def check() -> None:
    given = [name for name in OF_MODES if flags.FLAGS[name].present]
    command_line.check_flags(
      CONFIG.value, WORKDIR.value, MODE.value, tuple(MODES), given
    )
    command_line.check_mode(MODE.value, given, OF_MODES)

  return command_line.parse(argv, CONFIG, ARGUMENTS, check)


def main(argv: list[str]) -> None:
  command_line.check_arguments(argv[1:])
  signals.keep(KEPT[MODE.value])
  folder = WORKDIR.value
  may_write = not os.path.exists(folder) or os.access(folder, os.W_OK)
  if (
    folder and may_write and not jax.config.values["jax_compilation_cache_dir"]
  ):
    # A run that goes on, and whoever reads it, need not compile again.
    jax.config.update("jax_compilation_cache_dir", f"{folder}/compiled")
  join.join(COORDINATOR.value, PROCESS_ID.value, NUM_PROCESSES.value)
  signals.renew()
  heartbeat.begin(COORDINATOR.value)
  logs.begin(folder)
  agreement.check_versions()
  values = CONFIG.value.to_json_best_effort(sort_keys=True)
  agreement.check_same("the configuration", values)
  given = {name: flags.FLAGS[name].value for name in ("mode", *OF_MODES)}
  agreement.check_same("--mode or a flag of it", repr(given))
  try:
    MODES[MODE.value]()
  except SystemExit:
    # All processes end so: by a signal, when all is saved.
    heartbeat.done()
    raise
  heartbeat.done()


def ours(record: Any) -> bool:
  """Whether a log record is worth a line: a library must warn to be heard.

  With an error's traceback it only repeats what it then raises.
  """
  if "site-packages" not in record.pathname:
    return True
  return record.levelno > 20 and not record.exc_info


def ended(error: Exception) -> NoReturn:
  """Ends the command with one line, where the user can do something."""
  # The flag as far as it was read: a wrong --config ends before that.
  reason = machine_errors.explain(error, flags.FLAGS["workdir"].value or "")
  if reason is None and not isinstance(error, Failure):
    if signals.among_others():
      status = heartbeat.settle(error)
      traceback.print_exception(error)
      signals.end(status, f"error: {type(error).__name__}, as traced above")
    raise error
  logging.debug("with --verbosity=1, from here:", exc_info=error)
  if reason is None and not signals.among_others():
    sys.exit(f"error: {error}")
  # Objects that the error has broken would each tell of it when they go.
  signals.end(1, f"error: {reason or error}")


if __name__ == "__main__":
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(ours)
  sys.unraisablehook = machine_errors.report
  # PyTorch is not missed: no word of transformers about it.
  os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
  try:
    app.run(main, flags_parser=parse)
  except Exception as error:
    ended(error)
