"""Presets by name, and the nearest one of a name that leads nowhere."""

import pytest

from encdec.hub import (
  HubError,
  compose_config,
  decoder_bos,
  load_side_config,
  token_sources,
)


def test_presets_have_no_special_ids_of_others():
  config = load_side_config("gpt2:tiny")
  assert config.vocab_size == 600 and config.eos_token_id is None
  hub = compose_config(load_side_config("bert:tiny"), config)
  assert decoder_bos(hub) is None
  assert [source.end for source in token_sources(hub)] == [None, None]


@pytest.mark.parametrize(
  ("name", "error", "message"),
  [
    ("bert:huge", ValueError, "bert:huge is no preset"),
    ("nobody/no-such-model", HubError, "'nobody/no-such-model' is no folder"),
    ("a/b/c", HubError, "'a/b/c': there is no such folder"),
    ("bert-tiny", HubError, r"did you mean the preset 'bert:tiny', which has"),
    ("bert_tiny", HubError, "did you mean the preset 'bert:tiny'"),
    ("BERT:tiny", HubError, "did you mean the preset 'bert:tiny'"),
    ("bret:tiny", HubError, "did you mean the preset 'bert:tiny'"),
    ("bert/tiny", HubError, "did you mean the preset 'bert:tiny'"),
    ("gpt-2:tiny", HubError, "did you mean the preset 'gpt2:tiny'"),
    ("xlm-roberta-base", HubError, "did you mean the preset 'xlm-roberta:base"),
  ],
)
def test_a_name_that_leads_nowhere_is_named(name, error, message):
  with pytest.raises(error, match=message):
    load_side_config(name)


@pytest.mark.parametrize(
  "name", ["google-bert/bert-base-uncased", "facebook/bart-large-cnn", "./b"]
)
def test_a_name_that_is_like_no_preset_gets_no_suggestion(name):
  with pytest.raises(HubError) as caught:
    load_side_config(name)
  assert "preset" not in str(caught.value)


def test_a_folder_that_is_named_like_a_preset_gets_no_suggestion(
  tmp_path, monkeypatch
):
  (tmp_path / "bert-tiny").mkdir()
  monkeypatch.chdir(tmp_path)
  with pytest.raises(HubError, match=r"holds no config\.json; pass .* Hub id$"):
    load_side_config("bert-tiny")
