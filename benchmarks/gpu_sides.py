"""What each process of `gpu.py` does: one job, one line of JSON.

Of this code base the least is imported, and the rest of a run is not needed:
neither data, tokenizers nor checkpoints.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import generate
import gpu_attention
import numpy as np


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What runs, on which platform."""

  platform: str = "cuda"
  layers: int = 12
  width: int = 768
  vocab: int = 30522
  source: int = 512
  target: int = 128
  pairs: int = 64
  steps: int = 20
  rounds: int = 3
  batches: tuple[int, ...] = (32, 256, 1)
  beams: int = 4


def hub_shape(sizes: Sizes) -> dict[str, Any]:
  """BERT of these sizes, by the names of its Hub config."""
  return {
    "vocab_size": sizes.vocab,
    "hidden_size": sizes.width,
    "num_hidden_layers": sizes.layers,
    "num_attention_heads": sizes.width // 64,
    "intermediate_size": 4 * sizes.width,
    "max_position_embeddings": max(sizes.source, sizes.target),
  }


def pair_config(sizes: Sizes) -> Any:
  """BERT to BERT, as this code base configures it."""
  from encdec.archs import bert
  from encdec.config import EncDecConfig

  shape = bert.PRESETS["base"] | hub_shape(sizes)
  return EncDecConfig(
    bert.stack_config(shape, "encoder"),
    bert.stack_config(shape, "decoder"),
    vocab_multiple=128,
  )


def share_of_peak(sizes: Sizes, kind: str, seconds: float) -> float | None:
  """Of a chip's bf16 FLOP/s what a step's own products take; None: unknown."""
  from train.costs.chips import peak_flops
  from train.progress.throughput import train_step_flops

  flops = train_step_flops(
    pair_config(sizes), sizes.pairs, sizes.source, sizes.target
  )
  peak = peak_flops(kind)
  return flops / seconds / peak if peak else None


def rows_of(sizes: Sizes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Sources, targets and the decoder's inputs, full rows of random ids."""
  generator = np.random.default_rng(0)
  source, target = (
    generator.integers(110, sizes.vocab, (sizes.pairs, n), np.int32)
    for n in (sizes.source, sizes.target)
  )
  inputs = np.concatenate([np.full_like(target[:, :1], 101), target[:, :-1]], 1)
  return source, target, inputs


def timed(
  sizes: Sizes, advance: Callable[[], Any], wait: Callable[[], Any]
) -> dict[str, float]:
  """Times updates: "first" with compiling, "seconds" of a later one.

  Args:
    advance: begins an update and gives its loss.
    wait: returns when all updates are done.
  """
  begun = time.perf_counter()
  advance()
  wait()
  first = time.perf_counter() - begun
  advance()
  wait()
  begun, loss = time.perf_counter(), None
  for _ in range(sizes.steps):
    loss = advance()
  wait()
  seconds = (time.perf_counter() - begun) / sizes.steps
  assert loss is not None and np.isfinite(float(loss)), "the loss is finite"
  return {"first": first, "seconds": seconds, "loss": float(loss)}


def gigabytes(side: str, sizes: Sizes) -> float:
  """The most that the process held of the GPU, or on a CPU altogether."""
  if sizes.platform == "cuda":
    return generate.gpu_peak(side) / 1024
  return generate.memory("VmHWM") / 1024


def ours(sizes: Sizes, attention: str) -> dict[str, Any]:
  """Training steps by this code base."""
  import jax
  import jax.numpy as jnp

  from encdec.model import FlaxEncoderDecoderModule
  from encdec.sharding import DEFAULT_RULES as RULES
  from encdec.types import RowLayout
  from train import mesh as meshes

  mesh = meshes.make_mesh(meshes.MeshConfig(), jax.devices()[:1])
  module = FlaxEncoderDecoderModule(
    pair_config(sizes),
    dtype=jnp.dtype("bfloat16"),
    attention=attention,
    attention_dropout="values",
    row_layout=RowLayout.SINGLE,
    rules=RULES,
    platform=meshes.platform_of(mesh),
  )
  batch = jax.device_put(batch_of(sizes), meshes.batch_sharding(mesh, RULES))
  with jax.set_mesh(mesh):
    state, step = training(module, mesh, RULES)

    def advance():
      nonlocal state
      state, metrics = step(state, batch)
      return metrics["loss"]

    found = timed(sizes, advance, lambda: jax.block_until_ready(state))
  kind = jax.devices()[0].device_kind
  return found | {
    "memory": gigabytes("ours", sizes),
    "share": share_of_peak(sizes, kind, found["seconds"]),
  }


def training(module: Any, mesh: Any, rules: Any) -> tuple[Any, Any]:
  """A random state, and the jitted step that updates it by AdamW."""
  import jax

  from train import state, step
  from train.optim.optimizer import make_optimizer
  from train.optim.settings import OptimConfig

  settings = OptimConfig(
    name="adamw",
    lr=1e-4,
    schedule="constant",
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.01,
    clip_norm=1.0,
  )
  optimizer = make_optimizer(settings, 1000, module.config.decoder.width)
  abstract = state.abstract_state(module, optimizer, mesh, rules)
  step_ = step.jit_train_step(
    module=module,
    optimizer=optimizer,
    config=step.StepConfig(seed=0),
    mesh=mesh,
    rules=rules,
    shardings=state.state_shardings(abstract),
  )
  key = jax.random.key(0)
  return state.create_state(module, optimizer, mesh, rules, key), step_


def batch_of(sizes: Sizes) -> dict[str, np.ndarray]:
  """A batch as `data.collate` makes it, of rows without padding."""
  source, target, inputs = rows_of(sizes)

  def positions(ids):
    return np.tile(np.arange(ids.shape[1], dtype=np.int32), (len(ids), 1))

  return {
    "encoder_tokens": source,
    "encoder_segments": np.ones_like(source),
    "encoder_positions": positions(source),
    "decoder_inputs": inputs,
    "decoder_targets": target,
    "decoder_segments": np.ones_like(target),
    "decoder_positions": positions(target),
    "decoder_weights": np.ones(target.shape, np.float32),
  }


def pytorch(sizes: Sizes, backend: str) -> dict[str, Any]:
  """Training steps by transformers and PyTorch; `backend` compiles them."""
  import torch
  import transformers

  torch.manual_seed(0)
  torch.set_float32_matmul_precision("high")
  sides = [transformers.BertConfig(**hub_shape(sizes)) for _ in range(2)]
  config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
    *sides
  )
  config.decoder_start_token_id, config.pad_token_id = 101, 0
  model = transformers.EncoderDecoderModel(config).to(sizes.platform).train()
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=1e-4, weight_decay=0.01, fused=True
  )
  source, target, inputs = (
    torch.tensor(ids, dtype=torch.long, device=sizes.platform)
    for ids in rows_of(sizes)
  )
  run: Any = torch.compile(model, backend=backend) if backend else model

  def advance():
    with torch.autocast(sizes.platform, torch.bfloat16):
      out = run(
        input_ids=source,
        decoder_input_ids=inputs,
        labels=target,
        use_cache=False,
      )
    out.loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return out.loss.detach()

  on_gpu = sizes.platform == "cuda"
  found = timed(sizes, advance, torch.cuda.synchronize if on_gpu else int)
  kind = torch.cuda.get_device_name() if on_gpu else "cpu"
  return found | {
    "memory": gigabytes("torch", sizes),
    "share": share_of_peak(sizes, kind, found["seconds"]),
  }


JOBS = {
  "attention": gpu_attention.by_role,
  "ours": ours,
  "pytorch": pytorch,
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("job", choices=JOBS)
  parser.add_argument("argument")
  parser.add_argument("sizes", help="as JSON")
  args = parser.parse_args()
  # The packages, and not the files of this folder that have their names.
  sys.path[0] = str(Path(__file__).parents[1])
  # What libraries print must not mix with the answer.
  answers, sys.stdout = sys.stdout, sys.stderr
  given = json.loads(args.sizes)
  sizes = Sizes(**given | {"batches": tuple(given["batches"])})
  os.environ["JAX_PLATFORMS"] = sizes.platform
  os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
  print(json.dumps(JOBS[args.job](sizes, args.argument)), file=answers)


if __name__ == "__main__":
  main()
