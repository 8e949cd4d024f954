"""Compiles a run's own program for chips that are not here, and prints costs.

  python -m launch.aot --config=configs/bert2bert_cnn_dailymail.py \
    --topology=v5e:4x4 --config.train.batch_size=512
  python -m launch.aot --config=... --topology=v5e:16x16 --num_slices=2
  python -m launch.aot --config=... --topology=v5e:4x4 --mode=predict
  python -m launch.aot --config=... --topology=v5e:4x4 --search
  python -m launch.aot --config=... --topology=h200:8

Neither weights, data nor network are needed: a Hub id stands for its known
shape, or --shapes=ENCODER,DECODER names two presets. Compiling for a pod takes
minutes on a laptop, and as long for 256 chips as for 4.

--search tries rows a chip, remat, loss chunks and meshes, and prints those that
fit the memory of a chip, the fastest first, as flags to copy.
"""

from launch import early

if __name__ == "__main__":
  early.watch()

import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

# What runs here is a CPU; the programs are for other devices.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from absl import app, flags, logging
from jax.sharding import Mesh
from ml_collections.config_flags import config_flags

from train import text_generator, validate
from train.cli import command_line
from train.cli.paths import check_path
from train.config import Config
from train.costs import ahead, report, search, topology
from train.costs.ahead import AheadOfTime
from train.costs.ahead_generation import compile_generation
from train.errors import Failure, Refusal, refusing
from train.mesh import MeshConfig, make_mesh, sharding_rules
from train.setup import datasets
from train.setup.known_shapes import without_files
from train.setup.modules import preset_module

# Programs by name, each with the pairs that a run of it takes.
Programs: TypeAlias = dict[str, tuple[AheadOfTime, int | None]]

ARGUMENTS: list[str] = []
CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "A file of configs/, with :variant.",
  lock_config=True,
  sys_argv=ARGUMENTS,
)
TOPOLOGY = flags.DEFINE_string(
  "topology", "", "Kind of chip and shape of a slice: v5e:4x4, h200:8."
)
SLICES = flags.DEFINE_integer(
  "num_slices", 1, "Slices joined by a network.", lower_bound=1
)
SHAPES = flags.DEFINE_list(
  "shapes", [], "Presets of encoder and decoder: bert:base,gpt2:base."
)
MODE = flags.DEFINE_string("mode", "train", "train, or predict: generation.")
SEARCH = flags.DEFINE_bool("search", False, "Find the fastest that fits.")
SAVE = flags.DEFINE_string("save", "", "Keep the compiled program here.")


def check() -> None:
  """The flags that this command needs."""
  command_line.check_config(CONFIG.value)
  if not TOPOLOGY.value:
    raise Refusal("--topology is missing: pass one such as --topology=v5e:4x4")
  command_line.check_mode_name(MODE.value, ("train", "predict"))
  if SEARCH.value and (SAVE.value or MODE.value != "train"):
    flag = "--save" if SAVE.value else f"--mode={MODE.value}"
    raise Refusal(f"--search looks for training steps: leave it or {flag} out")
  if SAVE.value:
    check_save(Path(SAVE.value))


def check_save(path: Path) -> None:
  """A program can be written there, which is tried after minutes."""
  check_path("save", str(path))
  if MODE.value != "train":
    raise Refusal(
      "--save keeps one program, and generation is two: leave out --save or "
      f"--mode={MODE.value}"
    )
  if path.exists():
    raise Refusal(f"--save={path} exists: name a new file")
  if not path.parent.is_dir():
    raise Refusal(f"--save={path}: there is no folder {path.parent}; make it")


def parse(argv: list[str]) -> list[str]:
  return command_line.parse(argv, CONFIG, ARGUMENTS, check)


def main(argv: list[str]) -> None:
  command_line.check_arguments(argv[1:])
  with refusing():
    config = without_files(CONFIG.value, SHAPES.value)
    with config.unlocked():
      if config.mesh.slice == 1:
        config.mesh.slice = SLICES.value
    validate.check_values(config)
    take_attention(config)
    devices = topology.devices(TOPOLOGY.value, SLICES.value)
    if SEARCH.value:
      print_search(config, devices)
      return
    mesh = make_mesh(MeshConfig(**config.mesh.to_dict()), devices)
    programs = MODES[MODE.value](config, mesh)
  for name, (compiled, pairs) in programs.items():
    print(f"== {name}")
    print(report.table(compiled, mesh, pairs))
  if SAVE.value:
    save(compiled, Path(SAVE.value))


def take_attention(config: Config) -> None:
  """Leaves "auto" to what compiles for the topology, and says so."""
  taken = topology.attention(TOPOLOGY.value, config.model.attention)
  if taken != config.model.attention:
    config.model.attention = taken
    print("XLA's attention: cuDNN is not compiled without a device")


def compile_train(config: Config, mesh: Mesh) -> Programs:
  """The training step, for the largest shape of its batches."""
  shape = datasets.largest_shape(config)
  compiled = ahead.compile_step(config, preset_module(config), mesh, shape)
  return {"train step": (compiled, pairs_of(config))}


def compile_predict(config: Config, mesh: Mesh) -> Programs:
  """Generation as evaluation and prediction do it, for the longest sources."""
  rows = text_generator.rows_per_batch(config, mesh, sharding_rules(config))
  source, _ = datasets.buckets(config)[-1]
  module = preset_module(config)
  compiled = compile_generation(config, module, mesh, rows, source)
  return {name: (program, rows) for name, program in compiled.items()}


MODES = {"train": compile_train, "predict": compile_predict}


def pairs_of(config: Config) -> int | None:
  """Pairs of a step; how many are packed into a row is not known here."""
  packed = config.data.packing == "pack"
  return None if packed else config.train.batch_size


def print_search(config: Config, devices: Sequence[Any]) -> None:
  """The table of what fits, the fastest first."""
  shape = datasets.largest_shape(config)
  tried = search.search(config, preset_module(config), devices, shape)
  print(search.table(tried))


def save(compiled: AheadOfTime, path: Path) -> None:
  """Keeps what `serialize_executable.deserialize_and_load` takes, pickled.

  It loads on such devices: a program, and the trees that it takes and gives.
  """
  from jax.experimental import serialize_executable

  program = pickle.dumps(serialize_executable.serialize(compiled.compiled))
  path.write_bytes(program)
  print(f"kept the program: {path}, {len(program) / 1e6:.0f} MB")


if __name__ == "__main__":
  logging.set_verbosity(logging.INFO)
  try:
    app.run(main, flags_parser=parse)
  except Failure as error:
    sys.exit(f"error: {error}")
