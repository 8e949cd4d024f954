"""What does it save to refill rows that have ended?

  python benchmarks/refill.py
  python benchmarks/refill.py --beams=4 --rows=32

A random BERT to BERT generates for the same sources twice, by turns: batch by
batch, each until its longest text has ended, and as a stream, in which rows
that have ended go to the next source. The end token is as likely as gives texts
of all lengths, of which the mean is half the longest. The texts are compared
first; compiling is not in the figures.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from encdec.archs import bert
from encdec.config import EncDecConfig
from encdec.generation.decode_params import unstack
from encdec.generation.generate import generate, start_prompt
from encdec.generation.search.options import SearchOptions
from encdec.generation.streaming import generate_stream
from encdec.model import FlaxEncoderDecoderModule, init_params

START, END, PAD = 101, 102, 0


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--beams", type=int, default=1)
  parser.add_argument("--rows", type=int, default=8)
  parser.add_argument("--sources", type=int, default=128)
  parser.add_argument("--source", type=int, default=256)
  parser.add_argument("--new_tokens", type=int, default=64)
  parser.add_argument("--layers", type=int, default=4)
  parser.add_argument("--width", type=int, default=256)
  parser.add_argument("--rounds", type=int, default=5)
  return parser.parse_args()


def build(args) -> tuple[FlaxEncoderDecoderModule, dict]:
  hub = {
    "vocab_size": 30522,
    "hidden_size": args.width,
    "num_hidden_layers": args.layers,
    "num_attention_heads": max(1, args.width // 64),
    "intermediate_size": 4 * args.width,
    "max_position_embeddings": 512,
    # Wide enough that what is likeliest changes from token to token.
    "initializer_range": 0.1,
  }
  config = EncDecConfig(
    bert.stack_config({**bert.PRESETS["base"], **hub}, "encoder"),
    bert.stack_config({**bert.PRESETS["base"], **hub}, "decoder"),
    vocab_multiple=128,
  )
  module = FlaxEncoderDecoderModule(config)
  return module, init_params(module, jax.random.key(0))


def place(args, ids: list) -> dict[str, jax.Array]:
  """Sources number `ids`; None is no source."""
  index = jnp.arange(args.source, dtype=jnp.int32)[None]
  number = jnp.asarray([-1 if i is None else i for i in ids])[:, None]
  tokens = 1000 + (7919 * (number * args.source + index)) % 29000
  real = jnp.broadcast_to(number >= 0, tokens.shape)
  return {
    "encoder_tokens": tokens.astype(jnp.int32),
    "encoder_segments": real.astype(jnp.int32),
    "encoder_positions": jnp.broadcast_to(index, tokens.shape),
  }


class Sides:
  """Both ways to find the texts of all sources."""

  def __init__(self, args, module, params):
    self.args, self.module = args, module
    self.params = unstack(params, module)
    self.options = SearchOptions(
      jnp.int32(args.new_tokens + 1),
      jnp.int32(PAD),
      end_tokens=(END,),
      num_beams=args.beams,
    )

  def batches(self, sources: range) -> list[list[int]]:
    texts, rows = [], self.args.rows
    for first in range(0, len(sources), rows):
      found = generate(
        self.module,
        self.params,
        *place(self.args, list(sources[first : first + rows])).values(),
        options=self.options,
        prompt=start_prompt(rows, START),
        cache_length=self.args.new_tokens,
      )
      lengths = np.asarray(found.lengths)
      texts += [
        row[:length].tolist()
        for row, length in zip(np.asarray(found.tokens), lengths, strict=True)
      ]
    return texts

  def stream(self, sources: range) -> list[list[int]]:
    found = generate_stream(
      self.module,
      self.params,
      sources,
      lambda ids: place(self.args, ids),
      options=self.options,
      start_token=START,
      cache_length=self.args.new_tokens,
      rows=self.args.rows,
    )
    texts = {
      source: each.tokens[0, : each.lengths[0]].tolist()
      for source, each in found
    }
    return [texts[source] for source in sources]


def choose_bias(args, module, params) -> dict:
  """Parameters whose texts are half as long as they may be, in the mean."""
  head = params["decoder"]["head"]
  before, (low, high) = head["bias"], (0.0, 40.0)
  for _ in range(8):
    head["bias"] = before.at[END].add((low + high) / 2)
    sides = Sides(args, module, params)
    texts = sides.batches(range(args.rows * 4))
    mean = statistics.mean(len(text) - 1 for text in texts)
    middle = (low + high) / 2
    low, high = (middle, high) if mean > args.new_tokens / 2 else (low, middle)
  return params


def main() -> None:
  args = parse()
  sides = Sides(args, *_prepared(args))
  sources = range(args.sources)
  texts = {
    name: getattr(sides, name)(sources) for name in ("batches", "stream")
  }
  same = sum(
    a == b for a, b in zip(texts["batches"], texts["stream"], strict=True)
  )
  seconds = {name: [] for name in texts}
  for _ in range(args.rounds):
    for name, times in seconds.items():
      start = time.perf_counter()
      getattr(sides, name)(sources)
      times.append(time.perf_counter() - start)
  batches, stream = (statistics.median(times) for times in seconds.values())
  tokens = sum(len(text) - 1 for text in texts["stream"])
  print(
    f"beams {args.beams} rows {args.rows} sources {args.sources} mean length "
    f"{tokens / args.sources:.1f} of {args.new_tokens} | batches "
    f"{tokens / batches:.0f} tokens/s, stream {tokens / stream:.0f}: "
    f"{batches / stream:.2f}x | same {same}/{args.sources}"
  )


def _prepared(args) -> tuple[FlaxEncoderDecoderModule, dict]:
  module, params = build(args)
  return module, choose_bias(args, module, params)


if __name__ == "__main__":
  main()
