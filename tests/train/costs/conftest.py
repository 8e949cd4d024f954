"""A run's step, compiled for virtual devices once."""

import pytest

from configs import dates
from train.costs import ahead
from train.mesh import MeshConfig, make_mesh
from train.setup.modules import preset_module


def smoke():
  config = dates.get_config("smoke")
  config.data.source_vocab_size = 512
  config.model.dropout = 0.0
  return config


def compiled(sizes, devices=None, **changes):
  config = smoke()
  config.update_from_flattened_dict(changes)
  mesh = make_mesh(MeshConfig(*sizes), devices)
  shape = config.data.max_source_length, config.data.max_target_length
  found = ahead.compile_step(config, preset_module(config), mesh, shape)
  return found, mesh


@pytest.fixture(scope="session")
def compile_smoke():
  """`(sizes, devices=, **changes)` -> a tiny run's compiled step, its mesh."""
  return compiled


@pytest.fixture(scope="session")
def smoke_config():
  """Makes the configuration of that run."""
  return smoke


@pytest.fixture(scope="session")
def data_parallel():
  return compiled((1, 8, 1, 1))
