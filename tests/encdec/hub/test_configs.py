"""Options of generation in files: PyTorch says which of them count."""

import json

import numpy as np
import pytest
import torch
import transformers

from encdec import FlaxEncoderDecoderModel
from encdec.hub import (
  HubError,
  compose_config,
  decoder_bos,
  encdec_config,
  load_side_config,
  set_dropout,
  set_init_std,
)

BEAMS = {"num_beams": 4, "max_length": 14, "no_repeat_ngram_size": 2}
# Everything that old versions wrote into the decoder's part.
OLD_DUMP = {
  "max_length": 20, "min_length": 0, "do_sample": False, "num_beams": 1,
  "early_stopping": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
  "length_penalty": 1.0, "repetition_penalty": 1.0, "diversity_penalty": 0.0,
  "num_beam_groups": 1, "no_repeat_ngram_size": 0, "bad_words_ids": None,
  "num_return_sequences": 1, "forced_bos_token_id": None, "prefix": None,
  "encoder_no_repeat_ngram_size": 0, "remove_invalid_values": False,
}  # fmt: skip
TASK = {"task_specific_params": {"summarization": {"num_beams": 3}}}


@pytest.fixture
def folder(tiny, tmp_path):
  """A saved pair without generation_config.json."""
  tiny.save_pretrained(tmp_path)
  (tmp_path / "generation_config.json").unlink()
  return tmp_path


def _pytorch(folder):
  return transformers.EncoderDecoderModel.from_pretrained(str(folder)).eval()


def _write(folder, top, decoder):
  path = folder / "config.json"
  values = json.loads(path.read_text()) | {
    # As old files leave them open.
    "pad_token_id": 4,
    "decoder_start_token_id": 3,
  }
  values |= top
  values["decoder"] = values["decoder"] | decoder
  path.write_text(json.dumps(values))


@pytest.mark.parametrize(
  ("top", "decoder"),
  [
    ({}, BEAMS),
    ({}, OLD_DUMP),
    (BEAMS, {}),
    (BEAMS, OLD_DUMP),
    ({"num_beams": 2}, BEAMS | {"length_penalty": 2.0}),
    ({"num_beams": 2, "max_length": None}, BEAMS),
    (TASK, TASK | OLD_DUMP),
    ({"min_length": 3}, {"bad_words_ids": [[5], [6, 7]]}),
    ({"forced_eos_token_id": 4}, {"forced_bos_token_id": 9}),
    ({}, {"eos_token_id": [4, 9], "repetition_penalty": 1.5}),
  ],
)
def test_options_in_config_json_are_those_of_pytorch(folder, top, decoder):
  _write(folder, top, decoder)
  theirs = _pytorch(folder)
  ours = FlaxEncoderDecoderModel.from_pretrained(folder)
  wanted = theirs.generation_config.to_dict()
  held = ours.generation_config.to_dict()
  assert {k: held[k] for k in wanted} == wanted
  # The part of the decoder is no side effect of the config that is saved.
  ours.save_pretrained(folder / "again")
  again = FlaxEncoderDecoderModel.from_pretrained(folder / "again")
  for name in {*BEAMS, *top, *decoder} - {"prefix", "task_specific_params"}:
    assert getattr(again.generation_config, name) == wanted.get(name)


def test_a_derived_config_has_nothing_that_no_file_says(folder):
  """A config.json with its differences from the defaults alone."""
  path = folder / "config.json"
  values = json.loads(path.read_text())
  kept = ("model_type", "vocab_size", "n_embd", "n_layer", "n_head")
  kept += ("hidden_size", "num_hidden_layers", "num_attention_heads")
  kept += ("intermediate_size", "max_position_embeddings", "n_positions")
  kept += ("is_decoder", "add_cross_attention")
  slim = {"model_type": "encoder-decoder", "decoder_start_token_id": 3}
  for side in ("encoder", "decoder"):
    slim[side] = {k: v for k, v in values[side].items() if k in kept}
  slim["decoder"]["num_beams"] = 2
  path.write_text(json.dumps(slim))
  ours = FlaxEncoderDecoderModel.from_pretrained(folder).generation_config
  theirs = _pytorch(folder).generation_config
  ids = {"pad_token_id", "bos_token_id", "eos_token_id"}
  assert ours.num_beams == 2
  assert {k: v for k, v in ours.to_diff_dict().items() if k not in ids} == {
    k: v for k, v in theirs.to_diff_dict().items() if k not in ids
  }


def test_a_search_of_the_decoders_part_finds_pytorchs_texts(folder, batch):
  _write(folder, {}, BEAMS)
  ids, _ = batch
  theirs = _pytorch(folder).generate(torch.tensor(ids))
  ours = FlaxEncoderDecoderModel.from_pretrained(folder).generate(ids)
  np.testing.assert_array_equal(np.asarray(ours.sequences), theirs.numpy())
  # A control: another search writes other texts.
  _write(folder, {}, OLD_DUMP)
  greedy = FlaxEncoderDecoderModel.from_pretrained(folder).generate(ids)
  assert (
    greedy.sequences.shape == _pytorch(folder).generate(torch.tensor(ids)).shape
  )
  assert greedy.sequences.shape != ours.sequences.shape


def test_generation_config_json_hides_config_json(folder):
  _write(folder, {"num_beams": 3}, BEAMS)
  transformers.GenerationConfig(num_beams=2, eos_token_id=4).save_pretrained(
    str(folder)
  )
  ours = FlaxEncoderDecoderModel.from_pretrained(folder).generation_config
  theirs = _pytorch(folder).generation_config
  assert ours.num_beams == theirs.num_beams == 2
  assert ours.max_length == theirs.max_length


def test_a_config_without_a_start_token_has_none(tmp_path):
  """PyTorch's config of Pegasus has no `bos_token_id` at all."""
  pegasus = load_side_config("pegasus:tiny")
  del pegasus.__dict__["bos_token_id"]
  assert not hasattr(pegasus, "bos_token_id")
  hub = compose_config(load_side_config("bert:tiny"), pegasus)
  assert decoder_bos(hub) is None


def _config_folder(folder, values):
  (folder / "config.json").write_text(
    values if isinstance(values, str) else json.dumps(values)
  )
  return str(folder)


@pytest.mark.parametrize(
  ("values", "error", "message"),
  [
    ({"model_type": "t5"}, ValueError, "model_type 't5' is no side"),
    ({}, ValueError, "model_type None"),
    ({"model_type": "encoder-decoder"}, ValueError, "load a pair with"),
    ("{", HubError, "is no JSON"),
    ("[]", HubError, "holds no JSON object"),
  ],
)
def test_a_config_that_is_no_sides_is_refused(tmp_path, values, error, message):
  with pytest.raises(error, match=message):
    load_side_config(_config_folder(tmp_path, values))


def test_an_empty_folder_is_refused(tmp_path):
  with pytest.raises(HubError, match=r"holds no config\.json"):
    load_side_config(str(tmp_path))
  with pytest.raises(ValueError, match="is no encoder-decoder; compose one"):
    FlaxEncoderDecoderModel.from_pretrained(
      _config_folder(tmp_path, {"model_type": "bert"})
    )


def test_old_config_files_are_read(tiny, tmp_path):
  tiny.save_pretrained(tmp_path)
  path = tmp_path / "config.json"
  values = json.loads(path.read_text())
  values["model_type"] = "encoder_decoder"
  values["max_length"] = 23
  path.write_text(json.dumps(values))
  (tmp_path / "generation_config.json").unlink()
  model = FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  assert model.generation_config.max_length == 23
  assert model.config.model_type == "encoder-decoder"
  values["tie_encoder_decoder"] = True
  path.write_text(json.dumps(values))
  with pytest.raises(ValueError, match=r"share='all'.*name \(bert, gpt2\)"):
    FlaxEncoderDecoderModel.from_pretrained(tmp_path)


def test_set_dropout_and_init_std():
  for name in ("bert:tiny", "gpt2:tiny", "bart:tiny", "xglm:tiny"):
    config = load_side_config(name)
    set_dropout(config, 0.25)
    set_init_std(config, 0.5)
    role = "encoder" if name == "bert:tiny" else "decoder"
    other = load_side_config("bert:tiny")
    pair = (config, other) if role == "encoder" else (other, config)
    side = getattr(encdec_config(compose_config(*pair)), role)
    rates = (
      side.embedding_dropout,
      side.residual_dropout,
      side.mlp_dropout,
      side.attention_dropout,
    )
    assert rates == (0.25,) * 4 and side.init_std == 0.5
    inner = hasattr(config, "activation_dropout")
    assert side.activation_dropout == (0.25 if inner else 0.0)
