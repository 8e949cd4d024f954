"""MiniLM's rows: of one shape, but for the one whose sides share all."""

import math

import pytest

from configs import minilm
from encdec.config import Share
from train import loop, validate
from train.setup.known_shapes import without_files
from train.setup.modules import preset_module


@pytest.mark.parametrize("row", minilm.ROWS)
def test_a_rows_shape(row):
  config = minilm.get_config(row)
  validate.check_values(config)
  # A BERT that has the layers which are taken.
  shaped = without_files(config, ["bert:base", "bert:base"])
  model = preset_module(shaped).config
  layers = model.encoder.num_layers, model.decoder.num_layers
  shares_all = row == "minilmshare"
  assert model.share == (Share.ALL if shares_all else Share.EMBEDDINGS)
  assert layers == ((12, 12) if shares_all else (12, 3))
  validate.check_values(minilm.get_config(f"{row},smoke"))


@pytest.mark.sample(1)
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("row", minilm.ROWS)
def test_a_rows_smoke_variant_trains(row, tmp_path):
  result = loop.run(minilm.get_config(f"{row},smoke"), str(tmp_path / "run"))
  assert math.isfinite(result["eval/valid/rouge2"])


@pytest.mark.parametrize("arg", ["minilm", "rnd2rnd,minilm2rnd", "rnd2rnd,x"])
def test_what_is_no_row_is_refused_in_a_line(arg):
  with pytest.raises(ValueError, match=f"minilm.py:{arg}: ") as refused:
    minilm.get_config(arg)
  assert "\n" not in str(refused.value)
  assert all(name in str(refused.value) for name in minilm.ROWS)
