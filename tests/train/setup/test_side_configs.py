"""Sides as a configuration wants them: fewer layers, longer positions."""

import numpy as np
import pytest

from train import start
from train.errors import Refusal


@pytest.mark.usefixtures("one_device")
def test_a_side_starts_from_some_of_its_layers(folders, tiny_config):
  folder, encoder, _ = folders
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.encoder_init = "pretrained"
  config.model.init_std = -1.0
  config.model.encoder_layers = (1,)
  this = start.build_run(config, folder / "run")
  params = start.first_state(this).params
  kernel = params["encoder"]["layers"]["mlp"]["up"]["kernel"]
  theirs = encoder.encoder.layer[1].intermediate.dense.weight.detach().numpy()
  np.testing.assert_array_equal(kernel, theirs.T[None])
  config.model.encoder_layers = (1, 2)
  with pytest.raises(ValueError, match=r"model.encoder_layers=.*from 0 to 1"):
    start.build_run(config, folder / "other")


@pytest.mark.usefixtures("one_device")
def test_a_side_starts_with_longer_positions(folders, tiny_config):
  folder, encoder, _ = folders
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.encoder_init = "pretrained"
  config.model.init_std = -1.0
  config.data.max_source_length = 600
  run = folder / "run"
  with pytest.raises(
    Refusal, match=r"has 512 rows; .*raise model\.encoder_positions"
  ):
    start.build_run(config, run)
  config.model.encoder_positions = 1024
  config.model.decoder_positions = 2048
  theirs = encoder.embeddings.position_embeddings.weight.detach().numpy()
  tables = {}
  for extension in ("repeat_last", "interpolate"):
    config.model.position_extension = extension
    this = start.build_run(config, folder / extension)
    embeddings = start.first_state(this).params["encoder"]["embeddings"]
    tables[extension] = np.asarray(embeddings["positions"]["embedding"])
    assert this.task.module.config.decoder.max_positions == 2048
  repeated, stretched = tables.values()
  np.testing.assert_array_equal(repeated[:512], theirs)
  assert (repeated[512:] == theirs[-1]).all() and len(repeated) == 1024
  assert (stretched[[0, -1]] == theirs[[0, -1]]).all()
  assert len(stretched) == 1024 and (stretched != repeated).any()
  config.model.encoder_positions = 100
  config.data.max_source_length = 32
  with pytest.raises(
    Refusal, match=r"model\.encoder_positions = 100: .* has 512, and"
  ):
    start.build_run(config, folder / "other")


@pytest.mark.usefixtures("one_device")
def test_a_pair_named_as_a_side_says_what_to_set(
  exported, tiny_config, tmp_path
):
  tiny_config.model.encoder = str(exported)
  with pytest.raises(Refusal, match=r"set model\.pair to it"):
    start.build_run(tiny_config, tmp_path / "run")
