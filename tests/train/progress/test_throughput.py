"""Speed, the FLOPs of a step, and the bar on a terminal."""

import contextlib
import dataclasses
import math
import time

import jax
import jax.numpy as jnp
import pytest

from encdec import archs
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule, param_shapes
from train.progress import throughput
from train.progress.throughput import Speed, train_step_flops


def _config(encoder: dict, decoder: dict) -> EncDecConfig:
  def stack(changes, role):
    arch = archs.ARCHS[changes["model_type"]]
    return arch.stack_config(arch.PRESETS["tiny"] | changes, role)

  return EncDecConfig(stack(encoder, "encoder"), stack(decoder, "decoder"))


def test_a_step_of_bert_base_is_436_gflop_a_pair():
  base = {
    "model_type": "bert", "vocab_size": 30522, "hidden_size": 768,
    "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072,
  }  # fmt: skip
  flops = train_step_flops(_config(base, base), 32, 512, 128)
  assert flops / 32 == pytest.approx(436e9, rel=0.005)


def _bert_gpt2(width: int) -> EncDecConfig:
  sizes = {"num_hidden_layers": 2, "num_attention_heads": 4}
  bert = {
    "model_type": "bert", "vocab_size": 500, "hidden_size": 128,
    "intermediate_size": 512, **sizes,
  }  # fmt: skip
  gpt2 = {
    "model_type": "gpt2", "vocab_size": 600, "n_embd": 4 * width, "n_layer": 3,
    "n_head": 4, "n_inner": None,
  }  # fmt: skip
  return _config(bert, gpt2)


def _albert_electra(width: int) -> EncDecConfig:
  sizes = {
    "vocab_size": 500, "embedding_size": width, "hidden_size": 128,
    "intermediate_size": 512, "num_hidden_layers": 3,
  }  # fmt: skip
  albert, electra = {"model_type": "albert"}, {"model_type": "electra"}
  return _config(albert | sizes, electra | sizes)


@pytest.mark.parametrize(
  "config", [_bert_gpt2(32), _bert_gpt2(48), _albert_electra(192)]
)
def test_the_forward_pass_is_what_the_compiler_counts(config):
  """Within the elementwise work; wide layers, so that it is small."""
  b, s, t = 2, 48, 24
  # Unrolled: the compiler counts a loop's body once.
  module = FlaxEncoderDecoderModule(config, scan_unroll=3)

  def forward(params, source, target):
    ones = [jnp.ones_like(x) for x in (source, source, target, target)]
    return module.apply(
      {"params": params},
      encoder_tokens=source,
      encoder_segments=ones[0],
      encoder_positions=ones[1],
      decoder_inputs=target,
      decoder_segments=ones[2],
      decoder_positions=ones[3],
    ).logits

  shapes = [jax.ShapeDtypeStruct((b, n), jnp.int32) for n in (s, t)]
  lowered = jax.jit(forward).lower(param_shapes(module), *shapes)
  counted = lowered.cost_analysis()["flops"]
  assert counted == pytest.approx(
    train_step_flops(config, b, s, t) / 3, rel=0.08
  )


@dataclasses.dataclass
class _Clock:
  now: float = 100.0

  def perf_counter(self) -> float:
    return self.now


@pytest.fixture
def clock(monkeypatch) -> _Clock:
  clock = _Clock()
  monkeypatch.setattr(throughput, "time", clock)
  assert time.perf_counter() != clock.now
  return clock


def test_speed_counts_training_alone(clock):
  speed = Speed(4 * 275e12)
  assert speed.read() == {}
  for _ in range(3):
    clock.now += 0.5
    speed.step(tokens=300.0, flops=55e12)
  with contextlib.suppress(KeyError), speed.pause():
    clock.now += 60.0
    raise KeyError
  assert speed.read() == {
    "time/tokens_per_second": 600.0,
    "time/step_seconds": 0.5,
    "time/data_wait": 0.0,
    "time/mfu": pytest.approx(110e12 / (4 * 275e12)),
  }
  assert speed.read() == {}
  clock.now += 1.0
  speed.step(tokens=300.0, flops=55e12)
  assert speed.read()["time/step_seconds"] == 1.0


def test_mfu_is_left_out_where_the_peak_is_unknown(clock):
  speed = Speed(None)
  clock.now += 1.0
  speed.step(10.0, 1e9)
  assert speed.read().keys() == {
    "time/tokens_per_second",
    "time/step_seconds",
    "time/data_wait",
  }


def test_waiting_for_data_is_a_share_of_the_time(clock):
  speed = Speed(None)

  def slow():
    for batch in range(4):
      clock.now += 1.0
      yield batch

  seen = []
  for batch in speed.waiting(slow(), lambda: 0.0):
    seen.append(batch)
    clock.now += 3.0
    speed.step(10.0, 1.0)
    if batch == 1:
      assert speed.read()["time/data_wait"] == 0.25
      # What was waited for before is not counted again.
      with speed.pause():
        clock.now += 50.0
  assert seen == [0, 1, 2, 3]
  assert speed.read()["time/data_wait"] == 0.25


@pytest.mark.parametrize(
  ("left", "share"), [(1.5, 0.125), (2.0, 0.0), (math.inf, 0.0), (-9.0, 0.5)]
)
def test_devices_that_compute_do_not_wait(clock, left, share):
  """Of two seconds until a batch comes, those after the step before count."""
  speed = Speed(None)
  asked = clock.now

  def slow():
    nonlocal asked
    for batch in range(3):
      asked = clock.now
      clock.now += 2.0
      yield batch

  for _ in speed.waiting(slow(), lambda: asked + left):
    clock.now += 2.0
    speed.step(10.0, 1.0)
  assert speed.read()["time/data_wait"] == share
