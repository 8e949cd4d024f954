"""A saved pair's files: what it shares, its tokenizers, its parameters."""

import json

import jax
import numpy as np
import pytest

from encdec.config import Share
from encdec.hub import Origin, is_pair, pair_params, read_pair
from encdec.hub.saved_pair import target_tokenizer_of


def test_what_was_saved_is_read(tiny, tmp_path):
  tiny.save_pretrained(tmp_path)
  pair = read_pair(Origin(str(tmp_path)))
  assert pair.share == Share.NONE and not pair.derived
  params, report = pair_params(tiny.module, pair, jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, params, tiny.params)
  assert report.summary() == "every tensor was read"


def test_a_side_is_no_pair(tiny, tmp_path):
  tiny.save_pretrained(tmp_path / "pair")
  tiny.save_pretrained(tmp_path / "side", part="encoder")
  assert is_pair(str(tmp_path / "pair"))
  assert not is_pair(str(tmp_path / "side"))


def test_a_longer_table_needs_an_extension(tiny, tmp_path):
  tiny.save_pretrained(tmp_path)
  pair = read_pair(Origin(str(tmp_path)))
  values = json.loads((tmp_path / "config.json").read_text())
  values["encoder"]["max_position_embeddings"] = 50
  (tmp_path / "config.json").write_text(json.dumps(values))
  longer = (
    type(tiny).from_pretrained(tmp_path, ignore_mismatched_sizes=True).module
  )
  with pytest.raises(ValueError, match="position_extension"):
    pair_params(longer, pair, jax.random.key(0))
  params, _ = pair_params(
    longer, pair, jax.random.key(0), position_extension="repeat_last"
  )
  table = params["encoder"]["embeddings"]["positions"]["embedding"]
  assert table.shape[0] == 50
  np.testing.assert_array_equal(table[40:], np.tile(table[39], (10, 1)))


def test_the_targets_tokenizer_is_its_own_where_there_is_one(tmp_path):
  origin = Origin(str(tmp_path))
  assert target_tokenizer_of(origin) == ""
  (tmp_path / "target_tokenizer").mkdir()
  (tmp_path / "target_tokenizer/tokenizer_config.json").write_text("{}")
  assert target_tokenizer_of(origin) == "target_tokenizer"
