"""A step is lowered without a run, and is the one that a run compiles."""

import hashlib

import jax
import pytest

from configs import bert2gpt2_cnn_dailymail, dates
from data.collate import abstract_batch
from train import start
from train.build_step import build_step
from train.mesh import MeshConfig, make_mesh
from train.setup.modules import preset_module


def smoke_config():
  config = dates.get_config("smoke")
  # Its tokenizer finds no 1,000 words in 500 dates.
  config.data.source_vocab_size = 512
  return config


def lowered(config):
  mesh = make_mesh(MeshConfig(**config.mesh.to_dict()))
  program = build_step(config, preset_module(config), mesh)
  shape = config.data.max_source_length, config.data.max_target_length
  with jax.set_mesh(mesh):
    return program.step.lower(
      program.state, abstract_batch(shape, config.train.batch_size)
    )


def digest(program) -> str:
  return hashlib.sha256(program.as_text().encode()).hexdigest()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
  """The program of the loop's own step for configs/dates.py:smoke."""
  config = smoke_config()
  this = start.build_run(config, tmp_path_factory.mktemp("run"))
  batch = abstract_batch(this.pipeline.shapes[-1], this.pipeline.batch_size)
  with jax.set_mesh(this.mesh):
    return digest(this.step.step.lower(this.program.state, batch))


def test_the_step_is_the_loops_without_a_workdir(smoke):
  assert digest(lowered(smoke_config())) == smoke


def test_another_rate_of_learning_is_another_program(smoke):
  config = smoke_config()
  config.optim.lr *= 2
  assert digest(lowered(config)) != smoke


def test_a_pod_of_full_size_is_lowered_from_presets():
  config = bert2gpt2_cnn_dailymail.get_config("pod")
  config.model.encoder, config.model.decoder = "bert:base", "gpt2:base"
  config.data.source_vocab_size, config.data.target_vocab_size = 30522, 50257
  config.mesh.fsdp, config.mesh.data = -1, 1
  module = preset_module(config)
  assert module.config.encoder.vocab_size == 30522
  text = lowered(config).as_text()
  rows = config.train.batch_size // config.train.accumulate_steps
  assert f"tensor<{rows}x{config.data.max_source_length}x768xbf16>" in text
