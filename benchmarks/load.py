"""How long does a checkpoint take to convert, and how much memory?

  python benchmarks/load.py
  python benchmarks/load.py --format=bin --rounds=5

A random BERT to GPT-2 of their base sizes, 1.05 GB in float32, is written once.
PyTorch and this library then load and save it by turns, each time in a process
of its own, files in the page cache; imports are not in the figures. What they
have written is compared first. Memory is what RssAnon gains over the process as
imported, at most, as a multiple of the parameters.

Both map safetensors and pickles and hold nothing of them until they write;
"read" is this library when its parameters, arrays of JAX, are asked for in
between. And it waits until what it has written is on the disk.
"""

import argparse
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from flax import traverse_util

SIDES = ("bert:base", "gpt2:base")
# The baseline of memory is taken between what it prints first and its go.
CHILD = """
import sys, time
source, output = sys.argv[1:]
{prepare}
print("ready", flush=True)
sys.stdin.readline()
start, work = time.perf_counter(), time.process_time()
model = {load}
loaded = time.perf_counter()
model.save_pretrained(output)
print(
  loaded - start,
  time.perf_counter() - loaded,
  time.process_time() - work,
  flush=True,
)
sys.stdin.readline()
"""
_OURS = (
  "import jax\nfrom encdec import FlaxEncoderDecoderModel\n"
  "jax.block_until_ready(jax.device_put(0))"
)
KINDS = {
  "pytorch": {
    "prepare": "import torch\nfrom transformers import EncoderDecoderModel",
    "load": "EncoderDecoderModel.from_pretrained(source)",
  },
  "ours": {
    "prepare": _OURS,
    "load": "FlaxEncoderDecoderModel.from_pretrained(source)",
  },
  "read": {
    "prepare": _OURS,
    "load": "FlaxEncoderDecoderModel.from_pretrained(source)\n"
    "jax.block_until_ready(model.params)",
  },
}


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--format", choices=("safetensors", "bin"), default="")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--folder", default="", help="where to write (3.2 GB)")
  return parser.parse_args()


def write(folder: Path, form: str) -> int:
  """The checkpoint; gives the bytes of its parameters."""
  from encdec.hub import compose_config, encdec_config, load_side_config
  from encdec.hub.files.safetensors_writer import TensorToWrite, write_weights
  from encdec.hub.weights.tensor_map import hub_shape, tensor_mappings
  from encdec.model import FlaxEncoderDecoderModule, param_shapes

  hub = compose_config(
    *map(load_side_config, SIDES), pad_token_id=0, decoder_start_token_id=0
  )
  hub.save_pretrained(folder)
  config = encdec_config(hub)
  shapes = traverse_util.flatten_dict(
    param_shapes(FlaxEncoderDecoderModule(config)), sep="/"
  )
  names = {
    mapping.name: hub_shape(mapping, shapes[mapping.path].shape)
    for mapping in tensor_mappings(config)
  }
  rng = np.random.default_rng(0)

  def make(shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)

  if form == "bin":
    import torch

    state = {name: torch.from_numpy(make(s)) for name, s in names.items()}
    torch.save(state, folder / "pytorch_model.bin")
  else:
    float32 = np.dtype(np.float32)
    tensors = [
      TensorToWrite(name, shape, float32, lambda shape=shape: make(shape))
      for name, shape in names.items()
    ]
    write_weights(folder, tensors, "10GB")
  return sum(4 * int(np.prod(shape)) for shape in names.values())


def convert(kind: str, source: Path, output: Path) -> dict[str, float]:
  """One conversion in a process of its own."""
  shutil.rmtree(output, ignore_errors=True)
  with subprocess.Popen(
    [sys.executable, "-c", CHILD.format(**KINDS[kind]), source, output],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
    cwd=Path(__file__).parents[1],
  ) as child:
    assert child.stdin and child.stdout
    if child.stdout.readline() != "ready\n":
      raise SystemExit(f"{kind}: the process did not start")
    peak = before = anonymous(child.pid)
    child.stdin.write("\n")
    child.stdin.flush()
    while not select.select([child.stdout], [], [], 0.01)[0]:
      peak = max(peak, anonymous(child.pid))
    peak = max(peak, anonymous(child.pid))
    line = child.stdout.readline().split()
    if len(line) != 3:
      raise SystemExit(f"{kind}: the conversion failed")
    child.communicate("\n")
  load, save, work = map(float, line)
  return {"load": load, "save": save, "cpu": work, "peak": peak - before}


def anonymous(pid: int) -> int:
  """RssAnon in bytes."""
  for line in Path(f"/proc/{pid}/status").read_text().splitlines():
    if line.startswith("RssAnon:"):
      return int(line.split()[1]) * 1024
  raise SystemExit("/proc/<pid>/status has no RssAnon: this needs Linux")


def compare(one: Path, other: Path) -> int:
  """How many tensors both folders hold, equal bit by bit."""
  from encdec.hub.files.weight_files import open_weights

  first, second = open_weights(one), open_weights(other)
  if first.keys() != second.keys():
    raise SystemExit(f"they differ in {set(first) ^ set(second)}")
  for name, array in first.items():
    if not np.array_equal(array, second[name]):
      raise SystemExit(f"they differ in {name}")
  return len(first)


def measure(form: str, rounds: int, folder: Path) -> None:
  source = folder / form
  source.mkdir()
  size = write(source, form)
  outputs = {kind: folder / f"{form}-{kind}" for kind in KINDS}
  # The first conversions fill the page cache and are compared.
  for kind, output in outputs.items():
    convert(kind, source, output)
  same = min(
    compare(outputs["pytorch"], outputs[kind]) for kind in ("ours", "read")
  )
  found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
  for _ in range(rounds):
    for kind, output in outputs.items():
      found[kind].append(convert(kind, source, output))
  totals = {}
  print(f"{form}: {size / 1e9:.2f} GB, {same} tensors equal", flush=True)
  for kind, runs in found.items():
    load, save, cpu, peak = (
      statistics.median(run[name] for run in runs)
      for name in ("load", "save", "cpu", "peak")
    )
    totals[kind] = statistics.median(run["load"] + run["save"] for run in runs)
    print(
      f"  {kind:<7} load {load:.2f} s, save {save:.2f} s, together "
      f"{totals[kind]:.2f} s, of a core {cpu:.2f} s; memory "
      f"{peak / size:.2f} x the parameters"
    )
  for kind in ("ours", "read"):
    ratio = totals["pytorch"] / totals[kind]
    print(f"  {kind} is {ratio:.2f} x as fast", flush=True)


def main() -> None:
  args = parse()
  forms = [args.format] if args.format else ["safetensors", "bin"]
  for form in forms:
    with tempfile.TemporaryDirectory(dir=args.folder or None) as folder:
      measure(form, args.rounds, Path(folder))


if __name__ == "__main__":
  main()
