"""What does one GPU do, beside PyTorch?

  benchmarks/gpu.sh                  # a table in less than nine minutes
  benchmarks/gpu.sh --pairs=128
  benchmarks/gpu.sh --tiny           # the same at tiny sizes, on a CPU

BERT-base to BERT-base, 512 source and 128 target tokens, in bfloat16. First
cuDNN's attention is compared with XLA's, forward and gradient, by their errors
against float32. Then a training step: AdamW on float32 parameters, gradients
clipped, dropout 0.1 (of attention, ours drops values and PyTorch weights, each
as its fused kernel can), full rows; PyTorch has autocast, SDPA without a mask
and fused AdamW, and runs once as it is and once compiled. Then generation,
greedy and with four beams, of texts that never end before 128 tokens.

Each side is a process of its own, and each line is printed when it is known. A
first step or call is one that compiles. The share of the chip's peak is that of
the model's own matrix products.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path

import generate
from gpu_sides import Sizes

TINY = Sizes("cpu", 1, 64, 512, 16, 8, 4, 1, 1, (2,), 2)
NEEDED = (
  "jax",
  "flax",
  "optax",
  "jaxtyping",
  "ml_collections",
  "huggingface_hub",
  "transformers",
  "torch",
)
# Seconds after which a job is given up, whatever is left.
PATIENCE = 150
ROW = "{:<34} {:>12} {:>12} {:>8} {:>10} {:>8} {:>9}"


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--tiny", action="store_true", help="on a CPU")
  parser.add_argument("--pairs", type=int, default=0, help="of a training step")
  parser.add_argument(
    "--seconds", type=int, default=520, help="what is not done then is left out"
  )
  return parser.parse_args()


def refusal(sizes: Sizes) -> str:
  """Why nothing can run here; empty where it can."""
  missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
  if missing:
    return f"this Python lacks {', '.join(missing)}: pip install them"
  if sizes.platform == "cpu":
    return ""
  code = "import jax; print(jax.devices('cuda')[0].device_kind)"
  found = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  if found.returncode:
    return f"JAX finds no GPU ({last_line(found.stderr)}); --tiny needs none"
  packages = ("jax", "torch", "transformers")
  versions = [f"{name} {metadata.version(name)}" for name in packages]
  print(f"{found.stdout.strip()}: {', '.join(versions)}", flush=True)
  return ""


def last_line(text: str) -> str:
  lines = [line for line in text.splitlines() if line.strip()]
  return lines[-1].strip()[:200] if lines else "it says nothing"


class Clock:
  """The time that is left, of `seconds` from now."""

  def __init__(self, seconds: float):
    self._end = time.monotonic() + seconds

  @property
  def left(self) -> float:
    return max(0.0, min(PATIENCE, self._end - time.monotonic()))


def job(clock: Clock, sizes: Sizes, name: str, argument: str) -> dict | str:
  """What a process finds, or why it found nothing."""
  if not clock.left:
    return "no time is left"
  command = [sys.executable, str(Path(__file__).with_name("gpu_sides.py"))]
  command += [name, argument, json.dumps(dataclasses.asdict(sizes))]
  try:
    done = subprocess.run(
      command, capture_output=True, text=True, timeout=clock.left
    )
  except subprocess.TimeoutExpired as error:
    return f"given up after {error.timeout:.0f} s"
  if done.returncode:
    return f"failed: {last_line(done.stderr)}"
  return json.loads(done.stdout)


def compare_attention(clock: Clock, sizes: Sizes) -> bool:
  """Whether cuDNN's attention is right, as far as it could be asked."""
  print("attention in bfloat16, forward and gradient, padded rows:")
  answer = job(clock, sizes, "attention", "self,causal,cross")
  if isinstance(answer, str):
    print(f"  {answer}", flush=True)
    return False
  right = True
  for role, found in answer.items():
    # An implementation may round elsewhere, and a bfloat16 has 8 bits.
    allowed = max(2 * found["xla"], 2**-7)
    within = found["cudnn"] <= allowed < found["control"]
    right = right and within
    print(
      f"  {role:<7} largest error cuDNN {found['cudnn']:.4f}, XLA "
      f"{found['xla']:.4f}, without a mask {found['control']:.4f}: "
      f"{'within' if within else 'NOT WITHIN'} bfloat16's error; cuDNN "
      f"{found['cudnn ms']:.2f} ms, XLA {found['xla ms']:.2f} ms: "
      f"{found['xla ms'] / found['cudnn ms']:.2f}x",
      flush=True,
    )
  return right


def compare_training(clock: Clock, sizes: Sizes, attention: str) -> None:
  """Pairs a second of both sides; the ratio is to PyTorch as it is."""
  sides = [
    ("PyTorch", "pytorch", ""),
    (f"ours, {attention} attention", "ours", attention),
  ]
  if sizes.platform == "cuda":
    sides.append(("PyTorch compiled", "pytorch", "inductor"))
  rates = {}
  print(
    ROW.format(
      f"training, {sizes.pairs} pairs a step",
      "pairs/s",
      "ms a step",
      "ratio",
      "first, s",
      "GB",
      "of peak",
    )
  )
  for label, name, argument in sides:
    found = job(clock, sizes, name, argument)
    if isinstance(found, str):
      print(f"{label:<34} {found}", flush=True)
      continue
    rates[label] = sizes.pairs / found["seconds"]
    print(
      ROW.format(
        label,
        f"{rates[label]:.1f}",
        f"{found['seconds'] * 1e3:.1f}",
        ratio(rates[label], rates.get("PyTorch")),
        f"{found['first']:.1f}",
        f"{found['memory']:.2f}",
        f"{found['share']:.1%}" if found["share"] else "-",
      ),
      flush=True,
    )


def ratio(rate: float, other: float | None) -> str:
  return f"{rate / other:.2f}x" if other else "-"


@contextlib.contextmanager
def patience(clock: Clock, side: generate.Side):
  """Ends a process that does not answer in time."""
  timer = threading.Timer(clock.left, side.process.kill)
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def compare_generation(clock: Clock, sizes: Sizes) -> None:
  """Tokens a second of both sides, for the same random pair."""
  if not clock.left:
    print("generation: no time is left", flush=True)
    return
  settings = argparse.Namespace(
    platform=sizes.platform,
    # On a CPU PyTorch is slow in bfloat16.
    dtype="bfloat16" if sizes.platform == "cuda" else "float32",
    source=sizes.source,
    new_tokens=sizes.target,
  )
  print(
    ROW.format(
      "generation",
      "tokens/s",
      "PyTorch's",
      "ratio",
      "first, s",
      "GB",
      "PyTorch's",
    )
  )
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    generate.save_model(folder, sizes.layers, sizes.width, 0.0)
    sides = {}
    for name in ("ours", "torch"):
      sides[name] = generate.Side(name, sys.executable, folder, settings)
      stack.callback(sides[name].close)
    for batch in sizes.batches:
      for beams in (1, sizes.beams):
        asked = generate.case(settings, batch, beams, "never")
        search = "greedy" if beams == 1 else f"{beams} beams"
        compare_texts(clock, sizes, sides, asked, f"{search}, batch {batch}")


def compare_texts(
  clock: Clock,
  sizes: Sizes,
  sides: dict[str, generate.Side],
  asked: dict,
  label: str,
) -> None:
  tokens = len(asked["ids"]) * sizes.target
  found, rates = {}, {}
  for name, side in sides.items():
    if not clock.left:
      print(f"{label:<34} no time is left", flush=True)
      return
    try:
      with patience(clock, side):
        first = side.run(asked)
        again = [side.run(asked) for _ in range(sizes.rounds)]
    except (BrokenPipeError, RuntimeError) as error:
      print(f"{label:<34} {name}: {error}", flush=True)
      continue
    rates[name] = tokens / statistics.median(a["seconds"] for a in again)
    found[name] = first["seconds"], again[-1]["peak"] / 1024
  if "ours" in found:
    first, memory = found["ours"]
    other = rates.get("torch")
    print(
      ROW.format(
        label,
        f"{rates['ours']:.0f}",
        f"{other:.0f}" if other else "-",
        ratio(rates["ours"], other),
        f"{first:.1f}",
        f"{memory:.2f}",
        f"{found['torch'][1]:.2f}" if other else "-",
      ),
      flush=True,
    )


def main() -> None:
  args = parse()
  sizes = TINY if args.tiny else Sizes()
  if args.pairs:
    sizes = dataclasses.replace(sizes, pairs=args.pairs)
  reason = refusal(sizes)
  if reason:
    sys.exit(reason)
  if sizes.platform == "cpu":
    # A rehearsal: threads that wait for each other take all of a small machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
  clock = Clock(args.seconds)
  right = compare_attention(clock, sizes)
  compare_training(clock, sizes, "auto" if right else "xla")
  compare_generation(clock, sizes)
  if not right:
    sys.exit("cuDNN's attention was not shown to be right: see above")


if __name__ == "__main__":
  main()
