"""The module of a configuration, with neither files nor the Hub."""

import pytest

from configs import dates
from encdec.types import RowLayout
from train.errors import Refusal
from train.setup.modules import preset_module


@pytest.mark.parametrize("key", ["encoder", "decoder", "pair"])
def test_files_of_the_hub_are_refused(key):
  config = dates.get_config("smoke")
  config.model[key] = "bert-base-uncased"
  with pytest.raises(Refusal, match=f"model.{key} = .*is no preset"):
    preset_module(config)


def test_a_module_is_what_the_configuration_says():
  config = dates.get_config("smoke")
  config.data.source_vocab_size, config.data.target_vocab_size = 300, 999
  config.model.vocab_multiple = 64
  config.model.encoder_positions = 640
  config.model.dtype, config.model.param_dtype = "bfloat16", "float32"
  module = preset_module(config)
  encoder, decoder = module.config.encoder, module.config.decoder
  assert (encoder.vocab_size, decoder.vocab_size) == (300, 999)
  assert (encoder.max_positions, decoder.max_positions) == (640, 1024)
  assert (module.dtype, module.param_dtype) == ("bfloat16", "float32")
  # Sides of one architecture alone can share.
  config.model.share = "all"
  with pytest.raises(ValueError, match=r"model\.share"):
    preset_module(config)


@pytest.mark.parametrize(
  "packing, layout",
  [
    ("none", RowLayout.SINGLE),
    ("bucket", RowLayout.SINGLE),
    ("pack", RowLayout.PACKED),
  ],
)
def test_data_promises_the_layout_of_rows(packing, layout):
  config = dates.get_config("smoke")
  config.data.packing = packing
  assert preset_module(config).row_layout == layout
