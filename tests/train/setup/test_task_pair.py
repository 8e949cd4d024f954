"""A run that starts from a saved pair: our own export, or PyTorch's folder."""

import json
import shutil

import jax
import numpy as np
import pytest
import torch
import transformers

from data.tokenizers import training
from data.tokenizers.tokenizer import load_tokenizer
from encdec import FlaxEncoderDecoderModel, hub
from train import generation_settings, loop, start
from train.errors import Refusal
from train.modes import export
from train.setup import trained
from train.setup.task import build_task
from train.workdir import json_files, recorded_config

pytestmark = pytest.mark.usefixtures("one_device")


def _leaves(params):
  return {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


def _assert_same(ours, theirs):
  ours, theirs = _leaves(ours), _leaves(theirs)
  assert ours.keys() == theirs.keys()
  for name, leaf in theirs.items():
    np.testing.assert_array_equal(ours[name], leaf, err_msg=name)


@pytest.mark.sample(1, group="exported runs")
def test_a_run_continues_its_export_on_new_data(
  finished, exported, tiny_config, tmp_path, caplog, assert_pytorch_generates
):
  first, folder, _ = finished
  config = tiny_config
  config.model.pair = str(exported)
  config.train.steps = 2
  config.optim.warmup_steps = 0
  with caplog.at_level("INFO", logger="absl"):
    this = start.build_run(config, tmp_path / "run")
    old = trained.load(first, str(folder), step=4)
    _assert_same(start.first_state(this).params, old.params)
    assert this.task.tokens.end == old.task.tokens.end
    assert this.task.tokens.start == old.task.tokens.start
    for side in ("source_tokenizer", "target_tokenizer"):
      ours, theirs = getattr(this.task, side), getattr(old.task, side)
      assert ours.fingerprint == theirs.fingerprint
    loop.run(config, str(tmp_path / "run"))
  # What stood in the config is named, and where each setting is from.
  assert "stands in place of model.encoder = 'bert:tiny'" in caplog.text
  assert "num_beams=3 (the saved pair)" in caplog.text
  assert "repetition_penalty=1.3 (the saved pair)" in caplog.text
  assert "no_repeat_ngram_size=0" in caplog.text
  # PyTorch finds the same texts by what the new export says.
  export.run(config, str(tmp_path / "run"), output=str(tmp_path / "hub"))
  best = trained.load(config, str(tmp_path / "run")).step
  assert_pytorch_generates(
    tmp_path / "hub", tmp_path / f"run/samples/valid-{best:08d}.jsonl"
  )
  said = json.loads((tmp_path / "hub/generation_config.json").read_text())
  assert said["num_beams"] == 3 and said["repetition_penalty"] == 1.3
  # The run needs its folder alone, as ever.
  config.model.pair = "gone"
  with pytest.raises(Refusal, match=r"model\.pair"):
    trained.load(config, str(tmp_path / "run"))


def test_settings_of_the_config_win(exported, tiny_config, tmp_path):
  config = tiny_config
  config.model.pair = str(exported)
  config.generation.num_beams = 2
  config.generation.no_repeat_ngram_size = 0
  config.generation.options = (
    '{"repetition_penalty": null, "suppress_tokens": [5]}'
  )
  task = build_task(config, tmp_path / "run")
  settings = task.generation_settings(config)
  assert settings.options == {
    "num_beams": 2,
    "num_return_sequences": 1,
    "max_length": 9,
    "min_length": 2,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "early_stopping": False,
    "suppress_tokens": [5],
  }
  assert settings.origins["num_beams"] == "the config"
  assert settings.origins["min_length"] == "the saved pair"


@pytest.mark.parametrize(
  ("saved", "message"),
  [
    ({"encoder_no_repeat_ngram_size": 3}, r"size=3 \(of the saved pair\)"),
    ({"penalty_alpha": 0.6}, r"penalty_alpha=0.6 \(of the saved pair\)"),
    ({"stop_strings": ["a"]}, r'"stop_strings": null'),
    ({"num_beams": "4"}, r"--config\.generation\.num_beams="),
    ({"early_stopping": 3}, r"early_stopping=3 \(of the saved pair\)"),
    ({"num_return_sequences": 2}, r"= 2 \(of the saved pair\) exceeds"),
  ],
)
def test_what_a_run_cannot_do_for_a_pair_is_refused(
  tiny_config, saved, message
):
  with pytest.raises(ValueError, match=message):
    generation_settings.resolve(tiny_config, saved)
  # And can be taken away.
  for name in saved:
    if name in generation_settings.UNSET:
      tiny_config.generation.num_beams = 2
      tiny_config.generation.early_stopping = "true"
    else:
      tiny_config.generation.options = json.dumps({name: None})
  settings = generation_settings.resolve(tiny_config, saved)
  assert settings.options.keys() - generation_settings.UNSET.keys() == set()


@pytest.fixture
def pytorch_pair(tmp_path):
  """BERT to BERT of PyTorch in an old folder: no generation_config.json."""
  tokenizer = training.train_wordpiece(["red blue green 0123456789"], 60)
  values = {
    "vocab_size": tokenizer.vocab_size,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
  }
  torch.manual_seed(0)
  config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
    transformers.BertConfig(**values), transformers.BertConfig(**values)
  )
  model = transformers.EncoderDecoderModel(config)
  folder = tmp_path / "pair"
  model.save_pretrained(str(folder))
  (folder / "generation_config.json").unlink(missing_ok=True)
  path = folder / "config.json"
  saved = json.loads(path.read_text())
  saved["decoder_start_token_id"] = tokenizer.cls_id
  saved["eos_token_id"] = tokenizer.sep_id
  saved["decoder"] |= {"num_beams": 4, "max_length": 14, "do_sample": False}
  saved["length_penalty"] = 2.0
  path.write_text(json.dumps(saved))
  tokenizer.save(str(folder))
  return folder


def test_an_old_folder_of_pytorch_fills_what_is_unset(
  pytorch_pair, tiny_config, tmp_path
):
  config = tiny_config
  config.model.pair = str(pytorch_pair)
  this = start.build_run(config, tmp_path / "run")
  theirs = transformers.EncoderDecoderModel.from_pretrained(str(pytorch_pair))
  settings = this.task.generation_settings(config)
  for name in ("num_beams", "max_length", "length_penalty"):
    wanted = getattr(theirs.generation_config, name)
    assert settings.options[name] == wanted
  ours = FlaxEncoderDecoderModel.from_pretrained(pytorch_pair)
  held = _leaves(start.first_state(this).params)
  for name, leaf in _leaves(ours.params).items():
    rows = tuple(map(slice, leaf.shape))
    np.testing.assert_array_equal(held[name][rows], leaf, err_msg=name)
  # One tokenizer stands for both sides.
  task = this.task
  assert task.source_tokenizer.fingerprint == task.target_tokenizer.fingerprint


@pytest.mark.parametrize("share", ["", "none", "embeddings"])
def test_what_was_shared_stays_shared_unless_set(
  tmp_path, pytorch_pair, tiny_config, share
):
  model = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(
    **_equal_sides(pytorch_pair),
    share="all",
    decoder_start_token_id=2,
    pad_token_id=0,
    eos_token_id=3,
  )
  shared = tmp_path / "shared"
  model.save_pretrained(shared)
  load_tokenizer(str(pytorch_pair)).save(str(shared))
  tiny_config.model.pair = str(shared)
  tiny_config.model.share = share
  this = start.build_run(tiny_config, tmp_path / "run")
  assert str(this.task.module.config.share) == (share or "all")
  params = start.first_state(this).params
  ours = dict(hub.hub_from_tree(this.task.module.config, params))
  theirs = dict(hub.hub_from_tree(model.module.config, model.params))
  assert ours.keys() == theirs.keys()
  for name, tensor in theirs.items():
    np.testing.assert_array_equal(ours[name], tensor, err_msg=name)


def _equal_sides(folder):
  """Both sides with the encoder's arrays."""
  pair = transformers.EncoderDecoderModel.from_pretrained(str(folder))
  arrays = {f"bert.{k}": v for k, v in pair.encoder.state_dict().items()}
  pair.decoder.load_state_dict(arrays, strict=False)
  return {"encoder_model": pair.encoder, "decoder_model": pair.decoder}


def test_what_is_no_pair_is_refused(exported, tiny_config, tmp_path):
  config = tiny_config
  transformers.BertConfig().save_pretrained(tmp_path / "bert")
  for name in ("bert:tiny", str(tmp_path / "bert")):
    config.model.pair = name
    with pytest.raises(Refusal, match=r"set model\.encoder and model"):
      start.build_run(config, tmp_path / "run")
  config.model.pair = str(exported)
  without = tmp_path / "without"
  shutil.copytree(exported, without)
  for path in without.glob("tokenizer*"):
    path.unlink()
  config.model.pair = str(without)
  with pytest.raises(Refusal, match=r"set data\.source_tokenizer"):
    start.build_run(config, tmp_path / "run")
  # One tokenizer for two vocabularies would write in the source's words.
  shutil.rmtree(without)
  shutil.copytree(exported, without)
  shutil.rmtree(without / "target_tokenizer")
  with pytest.raises(Refusal, match=r"set data\.target_tokenizer"):
    start.build_run(config, tmp_path / "run")
  config.data.target_tokenizer = str(exported / "target_tokenizer")
  start.build_run(config, tmp_path / "other")


def test_a_run_from_before_these_keys_goes_on(tiny_config, tmp_path):
  """Its config.json lacks them, and has the old defaults of the others."""
  written = recorded_config.json_values(tiny_config)
  old = {k: v for k, v in written.items() if "pair" not in k}
  for key in ("model.grow_vocabulary", "generation.options"):
    del old[key]
  old |= {
    "model.share": "none",
    "generation.num_beams": 1,
    "generation.num_return_sequences": 1,
    "generation.min_length": 0,
    "generation.length_penalty": 1.0,
    "generation.no_repeat_ngram_size": 0,
    "generation.early_stopping": "false",
  }
  json_files.write_json(tmp_path / "config.json", old)
  assert recorded_config.check_same(tiny_config, tmp_path) == {}
  tiny_config.generation.num_beams = 2
  with pytest.raises(Refusal, match="num_beams: 1 -> 2"):
    recorded_config.check_same(tiny_config, tmp_path)


def test_a_pair_grows_for_added_tokens(pytorch_pair, tiny_config, tmp_path):
  inner = transformers.AutoTokenizer.from_pretrained(str(pytorch_pair))
  inner.add_tokens(["<hl>"])
  inner.save_pretrained(str(pytorch_pair))
  config = tiny_config
  config.model.pair = str(pytorch_pair)
  config.model.grow_vocabulary = True
  config.train.steps = 1
  config.optim.warmup_steps = 0
  config.optim.schedule = "constant"
  loop.run(config, str(tmp_path / "run"))
  export.run(config, str(tmp_path / "run"), output=str(tmp_path / "hub"))
  model, info = transformers.EncoderDecoderModel.from_pretrained(
    str(tmp_path / "hub"), output_loading_info=True
  )
  assert not any(info[key] for key in info)
  sizes = {
    side.get_input_embeddings().weight.shape[0]
    for side in (model.encoder, model.decoder)
  }
  assert sizes == {len(inner)}


def test_rows_of_a_pair_may_become_longer(pytorch_pair, tiny_config, tmp_path):
  config = tiny_config
  config.model.pair = str(pytorch_pair)
  config.model.encoder_positions = 64
  config.data.max_source_length = 60
  this = start.build_run(config, tmp_path / "run")
  params = start.first_state(this).params
  tables = [
    np.asarray(params[side]["embeddings"]["positions"]["embedding"])
    for side in ("encoder", "decoder")
  ]
  assert [len(table) for table in tables] == [64, 40]
  assert (tables[0][40:] == tables[0][39]).all()
