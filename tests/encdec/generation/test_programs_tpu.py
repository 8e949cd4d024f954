"""Beam search on a TPU moves no cache: what its compiler makes of the loop."""

import dataclasses
import json
import math
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.generation import programs
from encdec.generation.decode_params import unstack
from encdec.generation.generate import start_prompt
from encdec.generation.search.context import SearchContext
from encdec.generation.search.options import SearchOptions
from encdec.model import FlaxEncoderDecoderModule, param_shapes

pytestmark = pytest.mark.skipif(
  (sys.platform, platform.machine()) != ("linux", "x86_64"),
  reason="libtpu, the TPU's compiler, is built for Linux on x86-64 alone",
)

BEAMS = 4
MOVES = ("gather", "copy", "transpose")
# The compiler may take a cache into VMEM while a layer attends to it and
# write it back whole, by a `copy-start`, and what lies in VMEM is no temporary
# memory. Without it all that moves a cache is the program's own; caches that
# are small enough to stay there are compiled in no other way.
WITHOUT_VMEM = {"xla_vf_vmem_memory_space_assignment": "false"}
# Once loaded, libtpu handles a process's signals: the compiler has a process of
# its own. It is told that there is no TPU to look for.
ENVIRONMENT = {
  "JAX_PLATFORMS": "cpu",
  # Programs for devices that are not here can be written to it, not read.
  "JAX_ENABLE_COMPILATION_CACHE": "false",
  "XLA_FLAGS": "",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_LOG_DIR": "disabled",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
}


@dataclasses.dataclass(frozen=True)
class Size:
  """Of BERT to BERT, with heads of width 64."""

  layers: int
  width: int
  vocab: int
  batch: int
  source: int
  target: int


# The caches are large beside all else that a step makes.
REDUCED = Size(2, width=128, vocab=512, batch=64, source=256, target=256)
FULL = Size(12, width=768, vocab=30_522, batch=32, source=512, target=128)


@dataclasses.dataclass(frozen=True)
class Program:
  """The loop as compiled: its text, bytes that it takes, a cache's elements."""

  text: str = dataclasses.field(repr=False)
  temporary: int
  cache: int


def compile_loop(size: Size, shared_beams: int, options: dict) -> Program:
  """Compiles for one chip of a TPU v5e, from shapes alone."""
  programs.SHARED_BEAMS = shared_beams
  # Traces do not know what they were made with.
  jax.clear_caches()
  hub = {
    **ARCHS["bert"].PRESETS["base"],
    "vocab_size": size.vocab,
    "hidden_size": size.width,
    "num_hidden_layers": size.layers,
    "num_attention_heads": size.width // 64,
    "intermediate_size": 4 * size.width,
  }
  config = EncDecConfig(
    ARCHS["bert"].stack_config(hub, "encoder"),
    ARCHS["bert"].stack_config(hub, "decoder"),
  )
  module = FlaxEncoderDecoderModule(config, dtype=jnp.bfloat16, platform="tpu")
  search = SearchContext(
    SearchOptions(
      jnp.int32(size.target), jnp.int32(0), end_tokens=(2,), num_beams=BEAMS
    ),
    module.platform,
    vocab_size=size.vocab,
  )

  def inputs(stored):
    params = unstack(stored, module)
    source = jnp.ones((size.batch, size.source), jnp.int32)
    prompt = start_prompt(size.batch, 1)
    cross = programs.encode(module, params, source, source, source, None)
    loop_state = programs.start(
      module, size.target, params, cross, prompt, search, None
    )
    return params, cross, prompt, search, loop_state, jnp.int32(size.batch)

  shapes = jax.eval_shape(inputs, param_shapes(module))
  topology = topologies.get_topology_desc(
    platform="tpu", topology_name="v5e:2x2"
  )
  chip = SingleDeviceSharding(topology.devices[0])
  placed = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=chip),
    shapes,
  )
  compiled: Any = (
    programs.run.trace(module, *placed)
    .lower(lowering_platforms=("tpu",))
    .compile(compiler_options=options)
  )
  _, cross, _, _, loop_state, _ = shapes
  return Program(
    compiled.as_text(),
    compiled.memory_analysis().temp_size_in_bytes,
    min(
      leaf.size for leaf in jax.tree.leaves((cross.layers, loop_state.cache))
    ),
  )


@pytest.fixture(scope="module")
def compiled(full, tmp_path_factory):
  """Moves to look for, the masking program and the gathering one."""
  folder = tmp_path_factory.mktemp("tpu")

  def pair(options: dict) -> list[Program]:
    asked = json.dumps([dataclasses.asdict(FULL if full else REDUCED), options])
    done = subprocess.run(
      [sys.executable, __file__, asked, str(folder)],
      capture_output=True,
      text=True,
      timeout=550,
      env=os.environ | ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return [
      Program(**json.loads((folder / f"{name}.json").read_text()))
      for name in ("masking", "gathering")
    ]

  found = [((*MOVES, "copy-start"), *pair(WITHOUT_VMEM))]
  return [*found, (MOVES, *pair({}))] if full else found


def moves(program: Program, kinds: tuple[str, ...]) -> list[str]:
  """Instructions of these kinds in the loop that make a cache's elements."""
  computations: dict[str, list[str]] = {}
  lines: list[str] = []
  for line in program.text.splitlines():
    if header := re.match(r"(?:ENTRY )?%([\w.-]+) .*\{$", line):
      lines = computations[header[1]] = []
    lines.append(line)
  left = re.findall(r" while\(.*\bbody=%([\w.-]+)", program.text)
  assert len(left) == 1, "one loop was expected"
  instruction = re.compile(rf" = (.*?) (?:{'|'.join(kinds)})\(")
  seen, found = set(left), []
  while left:
    for line in computations[left.pop()]:
      called = set(re.findall(r"%([\w.-]+)", line)) & computations.keys()
      left += called - seen
      seen |= called
      made = instruction.search(line)
      sizes = re.findall(r"\w\[([\d,]+)\]", made[1]) if made else []
      if any(math.prod(map(int, s.split(","))) >= program.cache for s in sizes):
        found.append(line.strip())
  return found


@pytest.mark.sample(2, group="compiled for accelerators")
def test_a_step_moves_no_cache(compiled):
  for kinds, masking, gathering in compiled:
    assert not moves(masking, kinds)
    assert moves(gathering, ("gather",)), "gathered caches should be found"


@pytest.mark.sample(2, group="compiled for accelerators")
def test_masked_beams_take_a_quarter_of_the_memory(compiled):
  for _, masking, gathering in compiled:
    assert masking.temporary <= gathering.temporary / 4


if __name__ == "__main__":
  size, options = json.loads(sys.argv[1])
  for name, shared_beams in (
    ("masking", programs.SHARED_BEAMS),
    ("gathering", 0),
  ):
    program = compile_loop(Size(**size), shared_beams, options)
    path = Path(sys.argv[2], f"{name}.json")
    path.write_text(json.dumps(dataclasses.asdict(program)))
