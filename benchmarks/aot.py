"""What does a training step cost on chips that are not here?

  python benchmarks/aot.py                    # beside the peer's figures
  python benchmarks/aot.py --side=bert:large \
    --topologies=v5e:2x2,v5e:4x4,v5e:8x8,v5e:16x16,2*v5e:16x16
  python benchmarks/aot.py --peer_python=/elsewhere/bin/python
    # the peer's step is compiled, too, by a Python with transformers 4.57

The step of BERT to BERT, 512 source and 128 target tokens, 32 pairs a chip, in
bfloat16 with AdamW and dropout 0.1, is compiled for each topology, and measured
as `launch.aot` does. Efficiency is the least time of the first topology over
that of another, for as many pairs a chip: weak scaling. No communication is
hidden, which a TPU does in part. Compile seconds mean something on a machine
that does nothing else.

The peer is `FlaxEncoderDecoderModel` of transformers 4.57.6, compiled with jax
0.10.2 for v5e, plain data parallelism, 32 pairs a chip: the last class for
this, with a training step as its example has it.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The packages, not the file of this folder that has the name of one.
sys.path[0] = str(Path(__file__).parents[1])

# ruff: noqa: E402
from configs import bert2bert_cnn_dailymail
from train.costs import ahead, topology
from train.costs.ahead import AheadOfTime
from train.mesh import MeshConfig, make_mesh
from train.setup.known_shapes import without_files
from train.setup.modules import preset_module

SHAPE = (512, 128)
# Of the peer: temporary GB, TFLOP and GB accessed by XLA's own count, seconds.
PEER = "10.0 GB temporary, 14.45 TFLOP, 146 GB accessed, 319 s to compile"


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--topologies", default="v5e:2x2")
  parser.add_argument("--side", default="bert:base")
  parser.add_argument("--pairs", type=int, default=32, help="a chip")
  parser.add_argument("--remat", default="ctx")
  parser.add_argument("--attention", default="auto")
  parser.add_argument("--loss_chunks", type=int, default=4)
  parser.add_argument("--scan_unroll", type=int, default=1)
  parser.add_argument("--fsdp", type=int, default=1, help="-1: all of a slice")
  parser.add_argument("--peer_python", default="", help="compiles the peer")
  return parser.parse_args()


def compile_for(args: argparse.Namespace, name: str) -> tuple[AheadOfTime, int]:
  """The compiled step for "v5e:4x4" or "2*v5e:4x4", and its chips."""
  slices, _, slice_name = name.rpartition("*")
  slices = int(slices or 1)
  devices = topology.devices(slice_name, slices)
  config = bert2bert_cnn_dailymail.get_config()
  config.model.encoder = config.model.decoder = args.side
  config.data.source_vocab_size = config.data.target_vocab_size = 30522
  config = without_files(config)
  config.update_from_flattened_dict(
    {
      "model.remat": args.remat,
      "model.attention": topology.attention(slice_name, args.attention),
      "model.scan_unroll": args.scan_unroll,
      "train.loss_chunks": args.loss_chunks,
      "train.batch_size": args.pairs * len(devices),
    }
  )
  data = 1 if args.fsdp == -1 else -1
  mesh = make_mesh(MeshConfig(slices, data, args.fsdp, 1), devices)
  found = ahead.compile_step(config, preset_module(config), mesh, SHAPE)
  return found, len(devices)


def main() -> None:
  args = parse()
  if args.side == "bert:base":
    print(f"the peer, for bert:base: {PEER}", flush=True)
  if args.peer_python:
    peer = Path(__file__).parent / "aot_peer.py"
    # One slice: its step is the same for each, and so is what it costs a chip.
    one = args.topologies.split(",")[0].rpartition("*")[2]
    done = subprocess.run([args.peer_python, str(peer), one, str(args.pairs)])
    if done.returncode:
      print(f"the peer was not compiled for {one} by {args.peer_python}")
  first = None
  for name in args.topologies.split(","):
    found, chips = compile_for(args, name)
    memory, work = found.costs.memory, found.costs.work
    roof = found.costs.roofline
    assert roof is not None, "a topology's chips have figures"
    # CUDA's compiler counts nothing.
    xla = found.compiled.cost_analysis() or {}
    first = first or roof.seconds
    moved = sum(one.bytes for one in found.costs.collectives)
    print(
      f"{name}: {chips} chips, {memory.temporary / 1e9:.2f} GB temporary, "
      f"{memory.total / 1e9:.2f} of {found.costs.chip.memory / 1e9:.1f} GB, "
      f"{work.flops / 1e12:.2f} TFLOP, {work.bytes / 1e9:.1f} GB moved "
      f"(XLA, loops once: {xla.get('bytes accessed', 0) / 1e9:.1f} GB), "
      f"collectives {moved / 1e9:.3f} GB; least time compute "
      f"{roof.compute * 1e3:.1f} ms, memory {roof.memory * 1e3:.1f}, "
      f"interconnect {roof.interconnect * 1e3:.2f}, network "
      f"{roof.network * 1e3:.2f}: {args.pairs * chips / roof.seconds:.0f} "
      f"pairs/s, efficiency {first / roof.seconds:.1%}; compiled in "
      f"{found.seconds:.0f} s",
      flush=True,
    )


if __name__ == "__main__":
  main()
