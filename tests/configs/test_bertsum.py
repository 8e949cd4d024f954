"""BertSum: its sizes, its rates, and a smoke run of each task."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import bertsum
from encdec.config import NormPosition, PositionKind
from encdec.model import param_shapes
from train import loop
from train.optim.optimizer import make_optimizer
from train.optim.settings import OptimConfig
from train.setup.known_shapes import without_files
from train.setup.modules import preset_module


def test_the_pair_has_the_papers_sizes():
  config = bertsum.get_config("cnn_dailymail")
  module = preset_module(without_files(config))
  decoder = module.config.decoder
  assert (decoder.num_layers, decoder.width, decoder.mlp_width) == (
    6,
    768,
    2048,
  )
  assert decoder.num_heads == 8 and decoder.residual_dropout == 0.2
  assert decoder.norm_position == NormPosition.PRE
  assert decoder.position_kind == PositionKind.SINUSOIDAL
  assert decoder.embedding_scale == 768**0.5 and decoder.tied_head
  assert config.data.max_target_length < decoder.max_positions
  config.model.vocab_multiple = 1
  shapes = param_shapes(preset_module(without_files(config)))
  # BERT with its pooler, and of the decoder the table, six layers and a norm.
  layer = 8 * (768 * 768 + 768) + 2 * 768 * 2048 + 2048 + 768 + 3 * 2 * 768
  wanted = 109_482_240 + 30522 * 768 + 6 * layer + 2 * 768
  assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == wanted


@pytest.mark.parametrize("step", [1, 10_000, 20_000, 200_000])
def test_the_rates_of_both_sides_are_the_papers(step):
  config = bertsum.get_config("xsum")
  optim = OptimConfig(**config.optim.to_dict())
  rates = make_optimizer(optim, config.train.steps, 768).learning_rates(
    jnp.asarray(step - 1)
  )
  wanted = {
    "lr": 0.002 * min(step**-0.5, step * 20_000**-1.5),
    "lr/decoder/*": 0.2 * min(step**-0.5, step * 10_000**-1.5),
  }
  assert rates.keys() == wanted.keys()
  for name, rate in wanted.items():
    np.testing.assert_allclose(rates[name], rate, rtol=1e-5)


@pytest.mark.sample(1)
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("task", bertsum.TASKS)
def test_a_smoke_variant_trains(task, tmp_path):
  assert loop.run(bertsum.get_config(f"{task},smoke"), str(tmp_path / "run"))


@pytest.mark.parametrize("arg", ["cnn", "cnn_dailymail,xsum", "xsum,poof"])
def test_what_is_no_task_is_refused_in_a_line(arg):
  with pytest.raises(ValueError, match=f"bertsum.py:{arg}: ") as refused:
    bertsum.get_config(arg)
  assert "\n" not in str(refused.value)
  assert all(name in str(refused.value) for name in bertsum.TASKS)
