"""What does it save to put several pairs in a row?

  python benchmarks/packing.py
  python benchmarks/packing.py --loss

The built-in pydoc, with the smallest maximum lengths that truncate at most 5%
of each side, trains one small BERT to GPT-2 in three ways that take turns:
every pair padded to the maximum lengths; batches of one bucket; packed rows, of
the shape that --mode=inspect suggests.
Useful tokens a second, source and target, are compared; compiling is not in the
figures, and an update sees as many pairs on average each way. Beside it the
fill, for log-normal lengths too, and the ratio that the lengths allow: that of
rows without any padding, were a step's time its matrix products.

--loss trains padded and packed on the same number of pairs, each with three
seeds, and compares the loss of held-out pairs.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np

# The packages, not the file of this folder that has the name of one.
sys.path[0] = str(Path(__file__).parents[1])

# ruff: noqa: E402
from configs import common
from data import inspection, sources
from data.examples import Tokens
from data.mixture import Mixture
from data.packing import fill, pack
from data.pipeline import Pipeline, eval_batches, make_pipeline, train_batches
from data.store.encoding import Encoding
from data.store.pairs import EncodedPairs, encode_pairs
from data.tokenizers.training import train_bpe, train_wordpiece
from encdec.archs import bert, gpt2
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule
from encdec.sharding import DEFAULT_RULES
from train import mesh as meshes
from train import state, step
from train.evaluators import loss
from train.optim.optimizer import make_optimizer
from train.optim.settings import OptimConfig
from train.progress.throughput import train_step_flops

LONGEST = 1 << 14
VOCAB = 4000
# Of the longest pair; the last bucket is that pair's.
BUCKETS = ((0.1, 0.5), (0.2, 0.7), (0.4, 1.0), (1.0, 1.0))


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--rows", type=int, default=4, help="of a packed batch")
  parser.add_argument("--layers", type=int, default=2)
  parser.add_argument("--width", type=int, default=256)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--steps", type=int, default=4, help="of a round")
  parser.add_argument("--loss", action="store_true")
  parser.add_argument("--pairs", type=int, default=4000, help="seen by --loss")
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--lr", type=float, default=1e-3)
  return parser.parse_args()


class Data:
  """The pairs of pydoc, cut where 5% of each side are longer."""

  def __init__(self):
    train, valid = (
      sources.open_source(f"pydoc@{split}", fields=("source", "target"))
      for split in ("train", "valid")
    )
    records = [train[i] for i in range(len(train))]
    self.source = train_wordpiece([r["source"] for r in records], VOCAB)
    self.target = train_bpe([r["target"] for r in records], VOCAB)
    whole = self.encode(train, (LONGEST, LONGEST))
    every = np.arange(len(whole), dtype=np.int64)
    # The least that 95% do not exceed.
    self.longest = tuple(
      int(np.percentile(lengths, 95, method="inverted_cdf"))
      for lengths in (
        whole.source_lengths(every),
        whole.target_lengths(every),
      )
    )
    self.train = self.encode(train, self.longest)
    self.valid = self.encode(valid, self.longest)
    self.lengths = (
      self.train.source_lengths(every),
      self.train.target_lengths(every),
    )

  def encode(self, source, longest) -> EncodedPairs:
    return encode_pairs(
      source,
      Encoding(
        source_field="source",
        target_field="target",
        source_tokenizer=self.source,
        target_tokenizer=self.target,
        tokens=Tokens(start=0, end=0, source_pad=0, target_pad=0),
        max_source_length=longest[0],
        max_target_length=longest[1],
      ),
    )


def build(args, longest) -> FlaxEncoderDecoderModule:
  sizes = {
    "vocab_size": VOCAB,
    "hidden_size": args.width,
    "num_hidden_layers": args.layers,
    "num_attention_heads": max(1, args.width // 64),
    "intermediate_size": 4 * args.width,
    "max_position_embeddings": longest[0],
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
  }
  decoder = {
    "vocab_size": VOCAB,
    "n_embd": args.width,
    "n_layer": args.layers,
    "n_head": max(1, args.width // 64),
    "n_positions": longest[1],
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
  }
  config = EncDecConfig(
    bert.stack_config({**bert.PRESETS["base"], **sizes}, "encoder"),
    gpt2.stack_config({**gpt2.PRESETS["tiny"], **decoder}, "decoder"),
    vocab_multiple=128,
  )
  return FlaxEncoderDecoderModule(config, rules=DEFAULT_RULES)


def choose_shape(lengths, longest) -> tuple[int, int]:
  """The row that --mode=inspect suggests."""
  return inspection.suggest_rows(
    inspection.Lengths(*lengths), longest, seed=0
  ).shape


def print_fill(name: str, lengths, shape) -> float:
  rows = pack(*lengths, shape=shape, seed=0)
  full = fill(len(rows), *lengths, shape)
  print(
    f"{name}: rows of {shape[0]}+{shape[1]}, {len(lengths[0])} pairs, "
    f"{full.pairs_per_row:.2f} a row, fill {full.source:.1%} of source, "
    f"{full.target:.1%} of target"
  )
  return full.pairs_per_row


def log_normal(longest) -> tuple[np.ndarray, np.ndarray]:
  """Lengths as texts have them, cut as those of pydoc."""
  rng = np.random.default_rng(0)
  return tuple(
    np.clip(np.exp(rng.normal(np.log(most / 4), 0.8, 200_000)), 2, most).astype(
      np.int64
    )
    for most in longest
  )


class Way:
  """A pipeline, and the step that trains on it."""

  def __init__(self, args, module, pipeline: Pipeline, seed: int, steps: int):
    self.pipeline = pipeline
    self.mesh = meshes.make_mesh(meshes.MeshConfig(), jax.devices()[:1])
    settings = common.get_config().optim.to_dict() | {
      "lr": args.lr,
      "warmup_steps": max(1, steps // 10),
      "b2": 0.98,
      "weight_decay": 0.01,
      "clip_norm": 1.0,
    }
    optimizer = make_optimizer(OptimConfig(**settings), steps, args.width)
    with jax.set_mesh(self.mesh):
      self.state = state.create_state(
        module, optimizer, self.mesh, DEFAULT_RULES, jax.random.key(seed), None
      )
      abstract = state.abstract_state(
        module, optimizer, self.mesh, DEFAULT_RULES
      )
    self.shardings = state.state_shardings(abstract)
    self.step = step.jit_train_step(
      module=module,
      optimizer=optimizer,
      config=step.StepConfig(seed=seed),
      mesh=self.mesh,
      rules=DEFAULT_RULES,
      shardings=self.shardings,
    )

  def batches(self, start: int, stop: int):
    return train_batches(
      self.pipeline,
      start,
      stop,
      sharding=meshes.batch_sharding(self.mesh, DEFAULT_RULES),
    )

  def run(self, start: int, stop: int) -> tuple[float, float]:
    """Useful tokens of these steps, and their seconds."""
    batches, done = list(self.batches(start, stop)), []
    with jax.set_mesh(self.mesh):
      begun = time.perf_counter()
      for batch in batches:
        self.state, metrics = self.step(self.state, batch)
        done.append(metrics["source_tokens"] + metrics["target_tokens"])
      jax.block_until_ready(self.state)
      seconds = time.perf_counter() - begun
    return float(sum(done)), seconds


def pipelines(data: Data, shape, rows: int, pairs: int, seed: int = 0):
  """{name: pipeline}; an update sees `pairs` pairs, packed on average."""
  s, t = data.longest
  buckets = tuple(
    (max(2, int(s * part)), max(2, int(t * other))) for part, other in BUCKETS
  )
  ways = {
    "padded": ("none", pairs, ((s, t),)),
    "bucket": ("bucket", pairs, buckets),
    "packed": ("pack", rows, ()),
  }
  return {
    name: make_pipeline(
      Mixture((data.train,)),
      packing=packing,
      batch_size=size,
      seed=seed,
      buckets=shapes,
      pack_shape=shape,
    )
    for name, (packing, size, shapes) in ways.items()
  }


def speeds(args, module, data, shape, pairs) -> None:
  made = pipelines(data, shape, args.rows, pairs)
  total = args.rounds * args.steps
  ways = {
    name: Way(args, module, each, 0, 10 * total) for name, each in made.items()
  }
  # Every shape compiles before anything is timed.
  for way in ways.values():
    seen = set()
    for number in range(200):
      shape_of = way.pipeline.batch(number)["encoder_tokens"].shape
      if shape_of not in seen:
        seen.add(shape_of)
        way.run(number, number + 1)
      if len(seen) == len(way.pipeline.shapes):
        break
  rates = {name: [] for name in ways}
  for turn in range(args.rounds):
    for name, way in ways.items():
      # A batch of a bucket is as long as its bucket: more of them a round.
      count = args.steps * (4 if name == "bucket" else 1)
      tokens, seconds = way.run(turn * count, (turn + 1) * count)
      rates[name].append(tokens / seconds)
  for name, each in rates.items():
    spread = ", ".join(f"{rate:.0f}" for rate in each)
    print(f"{name}: {statistics.median(each):.0f} useful tokens/s ({spread})")
  for other in ("padded", "bucket"):
    ratios = [a / b for a, b in zip(rates["packed"], rates[other], strict=True)]
    print(f"packed / {other}: {statistics.median(ratios):.2f}x")


def print_bound(module, data: Data, shape, pairs_per_row: float) -> None:
  """What the lengths allow, in matrix products a pair."""
  padded = train_step_flops(module.config, 1, *data.longest)
  packed = train_step_flops(module.config, 1, *shape) / pairs_per_row
  alone = statistics.fmean(
    train_step_flops(module.config, 1, int(s), int(t))
    for s, t in zip(*data.lengths, strict=True)
  )
  print(
    f"by matrix products: packed / padded {padded / packed:.2f}x; no padding "
    f"at all, each pair alone, {padded / alone:.2f}x"
  )


def losses(args, module, data, shape, pairs) -> None:
  """The loss of held-out pairs after as many pairs, padded and packed."""
  steps = args.pairs // pairs
  found = {"padded": [], "packed": []}
  for seed in range(args.seeds):
    made = pipelines(data, shape, args.rows, pairs, seed)
    for name, results in found.items():
      way = Way(args, module, made[name], seed, steps)
      evaluate = step.jit_eval_step(
        module=module,
        mesh=way.mesh,
        rules=DEFAULT_RULES,
        shardings=way.shardings,
      )
      seen = 0.0
      with jax.set_mesh(way.mesh):
        for batch in way.batches(0, steps):
          way.state, metrics = way.step(way.state, batch)
          seen += float(metrics["pairs"])
        batches = eval_batches(
          data.valid,
          16,
          (data.longest,),
          sharding=meshes.batch_sharding(way.mesh, DEFAULT_RULES),
        )
        measured = loss.measure(evaluate, way.state.params, batches)
      results.append(measured.statistics()["loss"].value())
      print(
        f"{name}, seed {seed}: loss {results[-1]:.4f} after {steps} updates, "
        f"{seen:.0f} pairs",
        flush=True,
      )
  for name, each in found.items():
    mean, spread = statistics.fmean(each), statistics.stdev(each)
    print(f"{name}: {mean:.4f} +- {spread:.4f}")


def main() -> None:
  args = parse()
  data = Data()
  module = build(args, data.longest)
  shape = choose_shape(data.lengths, data.longest)
  print(f"maximum lengths {data.longest[0]} and {data.longest[1]}")
  per_row = print_fill("pydoc", data.lengths, shape)
  lengths = log_normal(data.longest)
  print_fill("log-normal", lengths, choose_shape(lengths, data.longest))
  print_bound(module, data, shape, per_row)
  pairs = round(per_row * args.rows)
  print(f"an update: {args.rows} packed rows, or {pairs} pairs")
  measure = losses if args.loss else speeds
  measure(args, module, data, shape, pairs)


if __name__ == "__main__":
  main()
