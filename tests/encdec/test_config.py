"""Configs: what contradicts itself is refused; what follows from the rest."""

import dataclasses

import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig, Share


def test_sides_are_checked(side_config):
  decoder = side_config("decoder")
  with pytest.raises(ValueError, match="built with role='decoder'"):
    EncDecConfig(decoder, decoder)
  encoder = side_config(num_layers=3, stored_layers=3)
  with pytest.raises(ValueError, match="share='all': the sides differ"):
    EncDecConfig(encoder, decoder, Share.ALL)
  with pytest.raises(ValueError, match="vocab_multiple=0 must be at least 1"):
    EncDecConfig(encoder, decoder, vocab_multiple=0)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"stored_layers": 2}, "stored_layers=2 must be 1 or num_layers=3"),
    ({"embedding_projection": False}, "embedding_width=64 must be width=96"),
    ({"num_kv_heads": 3}, "num_heads=4 is no multiple of num_kv_heads=3"),
    ({"position_offset": -1}, "position_offset=-1 must be a whole number"),
    ({"mlp_dropout": 1.0}, r"mlp_dropout=1.0 must lie in \[0, 1\)"),
  ],
)
def test_facts_that_contradict_each_other_are_refused(change, message):
  albert = ARCHS["albert"]
  config = albert.stack_config(albert.PRESETS["tiny"], "encoder")
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(config, **change)


def test_sides_that_share_may_differ_in_what_is_not_shared(side_config):
  encoder, decoder = side_config(pooler=True), side_config("decoder")
  assert EncDecConfig(encoder, decoder, Share.ALL).share == Share.ALL
  wider = dataclasses.replace(decoder, mlp_width=16, pad_token_id=3)
  config = EncDecConfig(encoder, wider, Share.EMBEDDINGS)
  assert config.share_differences(Share.ALL) == ["mlp_width (12, 16)"]
  other = EncDecConfig(encoder, dataclasses.replace(wider, vocab_size=14))
  assert other.share_differences(Share.NONE) == []
  assert other.share_differences(Share.EMBEDDINGS) == ["vocab_size (13, 14)"]


@pytest.mark.parametrize(
  ("multiple", "rows"), [(1, (13, 16)), (8, (16, 16)), (10, (20, 20))]
)
def test_vocabularies_are_rounded_up(side_config, multiple, rows):
  config = EncDecConfig(
    side_config(),
    side_config("decoder", vocab_size=16),
    vocab_multiple=multiple,
  )
  assert (config.encoder_vocab_rows, config.decoder_vocab_rows) == rows


def test_states_are_projected_where_widths_differ(side_config):
  decoder = side_config("decoder")
  assert not EncDecConfig(side_config(), decoder).needs_projection
  wide = side_config(width=12, embedding_width=12)
  assert EncDecConfig(wide, decoder).needs_projection


def test_the_padding_id_takes_no_position_where_ids_are_counted(side_config):
  assert side_config(pad_token_id=3).unplaced_token is None
  counted = side_config(pad_token_id=3, positions_from_ids=True)
  assert counted.unplaced_token == 3
