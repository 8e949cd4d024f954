"""Checkpoints are known by their shapes, without files."""

import pytest

from configs import bert2bert_cnn_dailymail, bert2gpt2_cnn_dailymail, dates
from encdec.archs import ARCHS
from train import validate
from train.errors import Refusal
from train.setup.known_shapes import _PRESETS, without_files
from train.setup.modules import preset_module


@pytest.mark.parametrize("preset", sorted({p for p, _ in _PRESETS.values()}))
def test_every_known_checkpoint_has_a_preset(preset):
  arch, size = preset.split(":")
  assert size in ARCHS[arch].PRESETS


def test_hub_ids_become_presets_of_their_sizes():
  config = bert2gpt2_cnn_dailymail.get_config()
  found = without_files(config)
  assert (found.model.encoder, found.model.decoder) == (
    "bert:base",
    "gpt2:base",
  )
  assert found.data.source_vocab_size == 28996
  assert found.data.target_vocab_size == 50257
  validate.check_values(found)
  # The one that was given is as it was.
  assert not validate.is_preset(config.model.encoder)
  sides = preset_module(found).config
  assert (sides.encoder.num_layers, sides.decoder.width) == (12, 768)


def test_shapes_that_are_named_stand_in():
  config = bert2bert_cnn_dailymail.get_config()
  for name in ("someone/unheard-of", "someone/bert-base-uncased"):
    config.model.encoder = name
    with pytest.raises(Refusal, match=r"model.encoder = 'someone.*--shapes="):
      without_files(config)
  found = without_files(config, ["bert:large", "gpt2:medium"])
  assert found.model.encoder == "bert:large"
  assert found.data.target_vocab_size == 50257
  with pytest.raises(Refusal, match="two presets"):
    without_files(config, ["bert:large"])
  with pytest.raises(Refusal, match="'bert:huge' is no preset"):
    without_files(config, ["bert:huge", "bert:base"])


def test_presets_keep_their_vocabularies():
  config = dates.get_config()
  found = without_files(config)
  assert found.data.source_vocab_size == config.data.source_vocab_size
