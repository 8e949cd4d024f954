"""How fast is generation, beside PyTorch's?

  python benchmarks/generate.py                       # the table of the README
  python benchmarks/generate.py --beams=4 --batch=8 --ends=never
  python benchmarks/generate.py --flax_python=old/bin/python
  python benchmarks/generate.py --platform=cuda --dtype=bfloat16 --layers=12 \
    --width=768 --source=512 --new_tokens=128 --batch=1,32,256 --ends=never

Both sides generate with one random BERT to BERT, in processes of their own that
take turns, with two threads each; the outputs are compared first. "never" bans
the end token, so that every text has all its tokens; "real" makes it as likely
as gives texts of all lengths. --flax_python is the interpreter of an
environment with transformers 4.57, whose Flax class then runs too. Needs the
`test` extra (PyTorch).

Compiling is not in the figures, and is printed beside them. Memory is the peak
of the process over what it held before the model was loaded, or that of the
GPU. In bfloat16 the two sides round differently: no text need be the same.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

START, END, PAD = 101, 102, 0


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  numbers = {"type": lambda text: [int(n) for n in text.split(",")]}
  parser.add_argument("--beams", default=[1, 4], **numbers)
  parser.add_argument("--batch", default=[1, 8, 32], **numbers)
  parser.add_argument("--ends", default="never,real")
  parser.add_argument("--source", type=int, default=256)
  parser.add_argument("--new_tokens", type=int, default=64)
  parser.add_argument("--layers", type=int, default=4)
  parser.add_argument("--width", type=int, default=256)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--platform", choices=["cpu", "cuda"], default="cpu")
  parser.add_argument("--dtype", default="float32")
  parser.add_argument("--flax_python", default="")
  parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
  parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
  return parser.parse_args()


# What each side runs: a function from a case to nested lists of ids.


def torch_side(folder: str, platform: str, dtype: str):
  import torch
  import transformers

  torch.set_num_threads(2)
  model = transformers.EncoderDecoderModel.from_pretrained(
    folder, dtype=getattr(torch, dtype)
  )
  model = model.eval().to(platform)

  def run(case):
    with torch.inference_mode():
      return model.generate(
        torch.tensor(case["ids"], device=platform),
        attention_mask=torch.tensor(case["mask"], device=platform),
        **case["options"],
      ).tolist()

  return run


def ours_side(folder: str, platform: str, dtype: str):
  import numpy as np

  from encdec import FlaxEncoderDecoderModel

  model = FlaxEncoderDecoderModel.from_pretrained(folder, np.dtype(dtype))

  def run(case):
    return np.asarray(
      model.generate(
        np.asarray(case["ids"]),
        attention_mask=np.asarray(case["mask"]),
        **case["options"],
      ).sequences
    ).tolist()

  return run


def flax_side(folder: str, platform: str, dtype: str):
  import jax.numpy as jnp
  import transformers

  model = transformers.FlaxEncoderDecoderModel.from_pretrained(
    folder, from_pt=True, dtype=jnp.dtype(dtype)
  )

  def run(case):
    options = {k: v for k, v in case["options"].items() if k != "do_sample"}
    # There the limits count the start token.
    options["max_length"] = options.pop("max_new_tokens") + 1
    if least := options.pop("min_new_tokens", 0):
      options["min_length"] = least
    return model.generate(
      jnp.asarray(case["ids"]),
      attention_mask=jnp.asarray(case["mask"]),
      **options,
    ).sequences.tolist()

  return run


SIDES = {"torch": torch_side, "ours": ours_side, "flax": flax_side}


def gpu_peak(side: str) -> float:
  """MB that the process held at most on its GPU."""
  if side == "torch":
    import torch

    return torch.cuda.max_memory_allocated() / 2**20
  import jax

  return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20


def memory(field: str) -> float:
  """MB of this process: VmRSS, or VmHWM, its peak."""
  with open("/proc/self/status", encoding="utf-8") as status:
    line = next(line for line in status if line.startswith(field))
  return int(line.split()[1]) / 1024


def work(side: str, folder: str, platform: str, dtype: str) -> None:
  """Answers each case on stdin with ids and seconds, a line of JSON each."""
  # What libraries print must not mix with the answers.
  answers, sys.stdout = sys.stdout, sys.stderr
  os.environ["JAX_PLATFORMS"] = platform
  os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
  run, before = None, 0.0
  for line in sys.stdin:
    if run is None:
      __import__("torch" if side == "torch" else "jax")
      before = memory("VmRSS")
      run = SIDES[side](folder, platform, dtype)
    start = time.perf_counter()
    ids = run(json.loads(line))
    seconds = time.perf_counter() - start
    peak = memory("VmHWM") - before if platform == "cpu" else gpu_peak(side)
    answer = {"ids": ids, "seconds": seconds, "peak": peak}
    print(json.dumps(answer), file=answers, flush=True)


class Side:
  """A process that generates when it is asked to."""

  def __init__(self, name: str, python: str, folder: str, args):
    self.name = name
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    self.printed = tempfile.TemporaryFile("w+", encoding="utf-8")
    self.process = subprocess.Popen(
      [
        python,
        __file__,
        f"--worker={name}",
        f"--folder={folder}",
        f"--platform={args.platform}",
        f"--dtype={args.dtype}",
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self.printed,
      text=True,
      env=os.environ | {"PYTHONPATH": path},
    )

  def run(self, case: dict) -> dict:
    self.process.stdin.write(json.dumps(case) + "\n")
    self.process.stdin.flush()
    line = self.process.stdout.readline()
    if not line:
      self.printed.seek(0)
      last = self.printed.read().strip().splitlines()[-1:] or ["silently"]
      raise RuntimeError(f"the process of {self.name} died: {last[0][:200]}")
    return json.loads(line)

  def close(self) -> None:
    self.process.kill()
    self.process.wait()
    self.printed.close()


def save_model(folder: str, layers: int, width: int, end_bias: float) -> None:
  """A random pair whose end token is as plausible as `end_bias` makes it."""
  import torch
  import transformers

  transformers.utils.logging.disable_progress_bar()
  shape = {
    "vocab_size": 30522,
    "hidden_size": width,
    "num_hidden_layers": layers,
    "num_attention_heads": max(1, width // 64),
    "intermediate_size": 4 * width,
    # Wide enough that what is likeliest changes from token to token.
    "initializer_range": 0.1,
  }
  torch.manual_seed(0)
  model = transformers.EncoderDecoderModel(
    transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
      transformers.BertConfig(**shape), transformers.BertConfig(**shape)
    )
  )
  with torch.no_grad():
    model.decoder.cls.predictions.bias[END] += end_bias
  model.save_pretrained(folder)


def case(args, batch: int, beams: int, ends: str) -> dict:
  ids = [
    [
      1000 + (7919 * (row * args.source + i)) % 29000
      for i in range(args.source)
    ]
    for row in range(batch)
  ]
  options = {
    "num_beams": beams,
    "max_new_tokens": args.new_tokens,
    "do_sample": False,
    "decoder_start_token_id": START,
    "eos_token_id": END,
    "pad_token_id": PAD,
  }
  if ends == "never":
    options["min_new_tokens"] = args.new_tokens
  mask = [[1] * args.source for _ in range(batch)]
  return {"ids": ids, "mask": mask, "options": options}


def generated(ids: list[list[int]]) -> list[list[int]]:
  """New tokens up to the end; what pads differs between the sides."""
  texts = []
  for row in ids:
    row = row[1:]
    texts.append(row[: row.index(END) + 1] if END in row else row)
  return texts


def choose_bias(args, folder: str) -> float:
  """The bias of the end token that halves the texts' mean length."""
  low, high = 0.0, 40.0
  for _ in range(7):
    bias = (low + high) / 2
    save_model(folder, args.layers, args.width, bias)
    side = Side("ours", sys.executable, folder, args)
    texts = generated(side.run(case(args, 8, 1, "real"))["ids"])
    side.close()
    mean = statistics.mean(len(text) for text in texts)
    low, high = (bias, high) if mean > args.new_tokens / 2 else (low, bias)
  return low


def compare(args, sides: list[Side], ends: str) -> None:
  for beams in args.beams:
    for batch in args.batch:
      asked = case(args, batch, beams, ends)
      first = {side.name: side.run(asked) for side in sides}
      texts = {name: generated(a["ids"]) for name, a in first.items()}
      tokens = sum(map(len, texts["ours"]))
      again = {side.name: [] for side in sides}
      for _ in range(args.rounds):
        for side in sides:
          again[side.name].append(side.run(asked))
      seconds = {
        name: statistics.median(a["seconds"] for a in answers)
        for name, answers in again.items()
      }
      for name in (name for name in seconds if name != "ours"):
        pairs = zip(texts["ours"], texts[name], strict=True)
        same = sum(a == b for a, b in pairs)
        print(
          f"beams {beams} batch {batch:3} ends {ends:5} "
          f"mean length {tokens / batch:4.1f} | ours "
          f"{tokens / seconds['ours']:7.0f} tokens/s, {name} "
          f"{tokens / seconds[name]:7.0f}: "
          f"{seconds[name] / seconds['ours']:5.2f}x | "
          f"same {same}/{batch} | compiling "
          f"{first['ours']['seconds'] - seconds['ours']:5.1f} s | peak "
          f"{again['ours'][-1]['peak']:5.0f} MB, {name} "
          f"{again[name][-1]['peak']:5.0f} MB",
          flush=True,
        )


def main() -> None:
  args = parse()
  if args.worker:
    work(args.worker, args.folder, args.platform, args.dtype)
    return
  with tempfile.TemporaryDirectory() as folder:
    for ends in args.ends.split(","):
      bias = choose_bias(args, folder) if ends == "real" else 0.0
      save_model(folder, args.layers, args.width, bias)
      sides = [
        Side(name, sys.executable, folder, args) for name in ("torch", "ours")
      ]
      if args.flax_python:
        sides.append(Side("flax", args.flax_python, folder, args))
      try:
        compare(args, sides, ends)
      finally:
        for side in sides:
          side.close()


if __name__ == "__main__":
  main()
