"""A run's generation is compiled without arrays, and measured."""

import pytest

from train.costs.ahead_generation import compile_generation
from train.mesh import MeshConfig, make_mesh
from train.setup.modules import preset_module


@pytest.mark.sample(1)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_search_counts_every_step(smoke_config, beams):
  config = smoke_config()
  config.generation.num_beams = beams
  mesh = make_mesh(MeshConfig(1, 8, 1, 1))
  module = preset_module(config)
  found = {}
  for length in (6, 11):
    config.generation.max_length = length
    found[length] = compile_generation(config, module, mesh, 8, 16)
  encode, search = found[6]["encode"].costs, found[6]["search"].costs
  assert encode.work.flops > 0
  assert [loop.trips for loop in search.loops].count(None) == 1
  # A step is a step: twice as many cost twice as much, but for the cache.
  longer = found[11]["search"].costs.work.flops
  assert longer == pytest.approx(2 * search.work.flops, rel=0.1)
  # The head alone, of each beam.
  head = 2 * module.config.decoder.width * module.config.decoder_vocab_rows
  assert search.work.flops > 5 * beams * head
  assert not [one for one in search.collectives if one.bytes > 10_000]


def test_options_that_contradict_are_named(smoke_config):
  config = smoke_config()
  config.generation.num_beams = 2
  config.generation.num_return_sequences = 3
  mesh = make_mesh(MeshConfig(1, 8, 1, 1))
  with pytest.raises(ValueError, match="generation"):
    compile_generation(config, preset_module(config), mesh, 8, 16)
