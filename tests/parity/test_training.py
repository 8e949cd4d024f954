"""Twenty updates follow PyTorch's: losses, clipping, decay, schedule."""

import copy
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from encdec.sharding import DEFAULT_RULES
from train import mesh as mesh_lib
from train import state, step
from train.losses import LossConfig
from train.optim.optimizer import make_optimizer
from train.optim.settings import OptimConfig

STEPS, ROWS, SMOOTHING = 20, 6, 0.1
OPTIM = OptimConfig(
  name="adamw",
  lr=3e-3,
  schedule="linear",
  warmup_steps=5,
  b1=0.9,
  b2=0.98,
  eps=1e-8,
  weight_decay=0.05,
  clip_norm=1.0,
)
# Compiling is most of the time of this test, and not what it tests.
QUICK = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}


def side_of(rng, vocab_size: int, length: int):
  lengths = rng.integers(2, length + 1, (ROWS, 1))
  segments = (np.arange(length)[None] < lengths).astype(np.int32)
  tokens = rng.integers(5, vocab_size, (ROWS, length)) * segments
  positions = np.arange(length)[None] * segments
  return tokens.astype(np.int32), segments, positions.astype(np.int32)


def batch_of(config, seed: int) -> dict[str, np.ndarray]:
  # Four batches in turn, so that the loss falls.
  rng = np.random.default_rng(seed % 4)
  source = side_of(rng, config.encoder.vocab_size, 9)
  target = side_of(rng, config.decoder.vocab_size, 7)
  inputs = np.roll(target[0], 1, axis=1)
  inputs[:, 0] = 3
  return {
    "encoder_tokens": source[0],
    "encoder_segments": source[1],
    "encoder_positions": source[2],
    "decoder_inputs": inputs * target[1],
    "decoder_targets": target[0],
    "decoder_segments": target[1],
    "decoder_positions": target[2],
    "decoder_weights": target[1].astype(np.float32),
  }


def torch_losses(pair) -> list[float]:
  """The same run in PyTorch, written with its own parts."""
  model = copy.deepcopy(pair.torch_model)
  decayed, others = [], []
  for name, parameter in model.named_parameters():
    norm = re.search(r"LayerNorm|layer_norm|\.ln_", name)
    plain = bool(norm) or name.endswith("bias")
    (others if plain else decayed).append(parameter)
  optimizer = torch.optim.AdamW(
    [
      {"params": decayed, "weight_decay": OPTIM.weight_decay},
      {"params": others, "weight_decay": 0.0},
    ],
    betas=(OPTIM.b1, OPTIM.b2),
    eps=OPTIM.eps,
  )
  losses = []
  for n in range(STEPS):
    batch = {
      name: torch.tensor(value).long()
      for name, value in batch_of(pair.config, n).items()
    }
    weight = batch["decoder_weights"]
    logits = model(
      input_ids=batch["encoder_tokens"],
      attention_mask=batch["encoder_segments"],
      decoder_input_ids=batch["decoder_inputs"],
      decoder_attention_mask=batch["decoder_segments"],
    ).logits
    loss = torch.nn.functional.cross_entropy(
      logits.flatten(0, 1),
      batch["decoder_targets"].masked_fill(weight == 0, -100).flatten(),
      label_smoothing=SMOOTHING,
      reduction="sum",
    )
    loss = loss / weight.sum()
    losses.append(loss.item())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIM.clip_norm)
    warm = min((n + 1) / 5, 1.0)
    left = 1 - max(0, n - 5) / (STEPS - 5)
    for group in optimizer.param_groups:
      group["lr"] = OPTIM.lr * warm * left
    optimizer.step()
  return losses


def still(config):
  """The pair without dropout, as PyTorch's eval mode has it."""
  rates = dict.fromkeys(
    (
      "embedding_dropout",
      "residual_dropout",
      "mlp_dropout",
      "attention_dropout",
    ),
    0.0,
  )
  return dataclasses.replace(
    config,
    encoder=dataclasses.replace(config.encoder, **rates),
    decoder=dataclasses.replace(config.decoder, **rates),
  )


def our_losses(pair, accumulate_steps: int) -> tuple[list[float], list[float]]:
  """Losses of the run, and of one whose optimizer is a little different."""
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(), jax.devices()[:1])
  optimizer = make_optimizer(OPTIM, STEPS, pair.config.decoder.width)
  module = pair.module.clone(config=still(pair.config), rules=DEFAULT_RULES)
  abstract = state.abstract_state(module, optimizer, mesh, DEFAULT_RULES)
  batches = [
    jax.tree.map(jnp.asarray, batch_of(pair.config, n)) for n in range(STEPS)
  ]
  with jax.set_mesh(mesh):
    function = step.jit_train_step(
      module=module,
      optimizer=optimizer,
      config=step.StepConfig(
        seed=0,
        accumulate_steps=accumulate_steps,
        loss=LossConfig(label_smoothing=SMOOTHING),
        loss_chunks=2,
      ),
      mesh=mesh,
      rules=DEFAULT_RULES,
      shardings=state.state_shardings(abstract),
    )
    train = function.lower(abstract, batches[0]).compile(compiler_options=QUICK)

    def run(skip: int | None) -> list[float]:
      now, losses = (
        state.create_state(
          module,
          optimizer,
          mesh,
          DEFAULT_RULES,
          jax.random.key(0),
          jax.tree.map(np.asarray, pair.params),
        ),
        [],
      )
      for n, batch in enumerate(batches):
        if n == skip:
          # One weight of one batch: the smallest thing that should show.
          weights = batch["decoder_weights"].at[0, 0].set(0.0)
          batch = batch | {"decoder_weights": weights}
        now, metrics = train(now, batch)
        losses.append(float(metrics["loss"]))
      return losses

    return run(None), run(0)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
  ("name", "accumulate_steps", "share"),
  [
    ("bert-gpt2", 1, "none"),
    ("bert-bert-widths", 2, "none"),
    ("albert-electra", 1, "none"),
    # Tied by hand in PyTorch.
    ("roberta-roberta", 1, "all"),
    ("roberta-roberta", 1, "embeddings"),
  ],
)
def test_twenty_updates_follow_pytorch(pairs, name, accumulate_steps, share):
  pair = pairs(name, share=share)
  expected = np.array(torch_losses(pair))
  got, other = map(np.array, our_losses(pair, accumulate_steps))
  error = np.abs(got / expected - 1)
  assert error.max() <= 1e-4, f"step {error.argmax()}: {error.max():.1e}"
  # The run is one that moves, and the comparison one that can fail.
  assert expected[-4:].mean() < 0.95 * expected[:4].mean()
  assert np.abs(other / expected - 1)[1:].max() > 1e-4
