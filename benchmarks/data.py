"""How fast is data prepared and read, and how much memory does that take?

  python benchmarks/data.py
  python benchmarks/data.py --pairs=2000000 --words=8,4    # about five minutes

A source is generated: pieces of the standard library's text, of log-normal
lengths. It is prepared by all cores; then its batches are built, of pairs in
random order, by one thread of one process and by worker processes. Tokens are
those of source and target after truncation, never padding. Memory is the peak
of what a stage's processes hold together, sampled: resident (libraries and
mapped files counted once for each process) and of that anonymous.

One H200 at half of its peak takes 0.7 million tokens a second (BERT-base to
BERT-base, 512 source and 128 target tokens).
"""

import argparse
import dataclasses
import functools
import hashlib
import math
import multiprocessing
import os
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

# The package of this name, not this file.
sys.path[0] = str(Path(__file__).parents[1])

# ruff: noqa: E402
from data.examples import Tokens
from data.schemes import pydoc
from data.store import prepare, worker_processes
from data.store.encoding import Encoding
from data.tokenizers import training

NEEDED = 0.7e6


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  numbers = {"type": lambda text: tuple(int(n) for n in text.split(","))}
  parser.add_argument("--pairs", type=int, default=40_000)
  parser.add_argument("--words", default=(80, 20), **numbers)
  parser.add_argument("--lengths", default=(256, 64), **numbers)
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--packing", default="none")
  parser.add_argument("--seconds", type=float, default=20.0)
  parser.add_argument("--workers", type=int, default=2)
  parser.add_argument("--seed", type=int, default=0)
  return parser.parse_args()


@dataclasses.dataclass(frozen=True)
class Generated:
  """Pairs of pieces of a text; a record is made when it is asked for."""

  text: tuple[str, ...]
  pairs: int
  words: tuple[int, int]
  seed: int
  skipped: int = 0

  @property
  def name(self) -> str:
    return f"generated[:{self.pairs}]"

  @property
  def fingerprint(self) -> str:
    facts = repr((self.text, self.pairs, self.words, self.seed))
    return hashlib.sha256(facts.encode()).hexdigest()[:32]

  def __len__(self) -> int:
    return self.pairs

  def __getitem__(self, index: int) -> dict[str, str]:
    draw = np.random.default_rng((self.seed, index))
    sizes = draw.lognormal(np.log(self.words), 0.6)
    starts = draw.integers(0, len(self.text) // 2, 2)
    source, target = (
      " ".join(self.text[start : start + 1 + int(size)])
      for start, size in zip(starts, sizes, strict=True)
    )
    return {"source": source, "target": target}

  def locate(self, index: int) -> str:
    return f"{self.name}: record {index}"


def generate(args: argparse.Namespace) -> tuple[Generated, Encoding]:
  """The source, and tokenizers trained on its text."""
  text = [pair["source"] for pair in pydoc.records("valid")]
  words = " ".join(text).split()
  source = Generated(tuple(words), args.pairs, args.words, args.seed)
  encoding = Encoding(
    source_field="source",
    target_field="target",
    source_tokenizer=training.train_wordpiece(text, 8000),
    target_tokenizer=training.train_bpe(text, 8000),
    tokens=Tokens(start=0, end=0, source_pad=0, target_pad=0),
    max_source_length=args.lengths[0],
    max_target_length=args.lengths[1],
  )
  return source, encoding


# Stages, each in a process of its own. They give tokens, seconds and cores.


def _prepare(args, folder: Path, source, encoding) -> tuple[int, float, int]:
  start = time.perf_counter()
  pairs = prepare.prepare_set(source, encoding, folder / "store", show=True)
  seconds = time.perf_counter() - start
  every = np.arange(len(pairs))
  tokens = pairs.source_lengths(every).sum() + pairs.target_lengths(every).sum()
  print(
    f"  {len(pairs):,} pairs, {tokens / len(pairs):.0f} tokens each, "
    f"{pairs.bytes / tokens:.2f} bytes a token"
  )
  return int(tokens), seconds, worker_processes.cores()


def _pipeline(args, folder: Path, source, encoding):
  from data import pipeline
  from data.mixture import Mixture

  start = time.perf_counter()
  pairs = prepare.prepare_set(source, encoding, folder / "store")
  opened = time.perf_counter()
  batches = pipeline.make_pipeline(
    Mixture((pairs,)),
    packing=args.packing,
    batch_size=args.batch,
    seed=args.seed,
    buckets=(args.lengths,),
    pack_shape=args.lengths,
    folder=folder / "store",
  )
  batches.batch(len(pairs) // args.batch)
  print(
    f"  opened in {opened - start:.2f} s, planned and a first batch in "
    f"{time.perf_counter() - opened:.2f} s"
  )
  return batches


def one_thread(args, folder: Path, source, encoding) -> tuple[int, float, int]:
  batches = _pipeline(args, folder, source, encoding)
  tokens = step = 0
  start = time.perf_counter()
  while (seconds := time.perf_counter() - start) < args.seconds:
    tokens += _useful(batches.batch(step))
    step += 1
  return tokens, seconds, 1


def workers(args, folder: Path, source, encoding) -> tuple[int, float, int]:
  os.environ["JAX_PLATFORMS"] = "cpu"
  import jax

  from data import pipeline

  batches = _pipeline(args, folder, source, encoding)
  where = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
  steps = pipeline.train_batches(
    batches, 0, 1 << 40, sharding=where, workers=args.workers
  )
  next(steps)
  tokens, start = 0, time.perf_counter()
  while (seconds := time.perf_counter() - start) < args.seconds:
    tokens += _useful(next(steps))
  steps.close()
  return tokens, seconds, args.workers


def _useful(batch) -> int:
  """Tokens of a batch that are not padding."""
  return sum(
    int((np.asarray(batch[f"{side}_segments"]) > 0).sum())
    for side in ("encoder", "decoder")
  )


class Memory:
  """The most that a process and its own hold together, in MB."""

  def __init__(self, process: int):
    self.resident = self.anonymous = 0.0
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._watch, args=(process,))
    self._thread.start()

  def _watch(self, process: int) -> None:
    while not self._stop.wait(0.1):
      held = [_held(one) for one in _tree(process)]
      self.resident = max(self.resident, sum(h[0] for h in held))
      self.anonymous = max(self.anonymous, sum(h[1] for h in held))

  def stop(self) -> None:
    self._stop.set()
    self._thread.join()


def _tree(process: int) -> list[int]:
  try:
    tasks = Path(f"/proc/{process}/task").iterdir()
    text = " ".join((task / "children").read_text() for task in tasks)
  except OSError:
    return []
  below = [_tree(int(child)) for child in text.split()]
  return [process, *(one for tree in below for one in tree)]


def _held(process: int) -> tuple[float, float]:
  """Resident and anonymous MB of a process."""
  try:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
  except OSError:
    return 0.0, 0.0
  sizes = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
  return tuple(
    int(sizes.get(name, ["0"])[0]) / 1024 for name in ("VmRSS:", "RssAnon:")
  )


def _do(stage: Callable, args, folder: Path, results) -> None:
  source, encoding = pickle.loads((folder / "task.pickle").read_bytes())
  results.put(stage(args, folder, source, encoding))


def main() -> None:
  args = parse()
  context = multiprocessing.get_context("spawn")
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    make = functools.partial(_generate, args, folder)
    _in_process(context, make)
    for stage in (_prepare, one_thread, workers):
      print(f"{stage.__name__.replace('_', ' ')}:", flush=True)
      results = context.SimpleQueue()
      process = context.Process(target=_do, args=(stage, args, folder, results))
      process.start()
      memory = Memory(process.pid or 0)
      process.join()
      memory.stop()
      if process.exitcode:
        raise SystemExit(process.exitcode)
      tokens, seconds, cores = results.get()
      rate = tokens / seconds / cores
      print(
        f"  {tokens:,} tokens in {seconds:.1f} s by {cores} cores: {rate:,.0f} "
        "tokens/s a core"
      )
      print(
        f"  {NEEDED:,.0f} tokens/s / {rate:,.0f} = {math.ceil(NEEDED / rate)} "
        "cores for one H200 at half of its peak"
      )
      print(
        f"  peak of memory: {memory.resident:,.0f} MB resident, of that "
        f"{memory.anonymous:,.0f} MB anonymous",
        flush=True,
      )


def _generate(args: argparse.Namespace, folder: Path) -> None:
  (folder / "task.pickle").write_bytes(pickle.dumps(generate(args)))


def _in_process(context, action: Callable[[], None]) -> None:
  process = context.Process(target=action)
  process.start()
  process.join()
  if process.exitcode:
    raise SystemExit(process.exitcode)


if __name__ == "__main__":
  main()
