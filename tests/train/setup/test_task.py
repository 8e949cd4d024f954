"""What a run starts from: weights of folders, tokens, and what is random."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
import transformers

from data.tokenizers import training
from encdec import hub
from encdec.archs import ARCHS
from tests import translators
from train import loop
from train.errors import Refusal
from train.setup import initial_params, tokenizers
from train.setup.task import build_task, record_task, restore_task

TEXTS = ["red blue green", "black white brown", "pink grey 0123456789"] * 9


@pytest.fixture
def folders(pairs_folder):
  """A BERT encoder and a GPT-2 decoder as `save_pretrained` leaves them."""
  wordpiece = training.train_wordpiece(TEXTS, 300)
  bpe = training.train_bpe(TEXTS, 270)
  encoder = transformers.BertModel(
    transformers.BertConfig(
      vocab_size=wordpiece.vocab_size,
      hidden_size=32,
      num_hidden_layers=2,
      num_attention_heads=2,
      intermediate_size=64,
    )
  )
  decoder = transformers.GPT2LMHeadModel(
    transformers.GPT2Config(
      vocab_size=bpe.vocab_size,
      n_embd=32,
      n_layer=2,
      n_head=2,
      bos_token_id=0,
      eos_token_id=0,
    )
  )
  for name, model, tokenizer in (
    ("bert", encoder, wordpiece),
    ("gpt2", decoder, bpe),
  ):
    model.save_pretrained(pairs_folder / name)
    tokenizer.save(str(pairs_folder / name))
  return pairs_folder, encoder, decoder


@pytest.mark.usefixtures("one_device")
def test_pretrained_sides_start_from_their_weights(folders, tiny_config):
  folder, encoder, decoder = folders
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.decoder = str(folder / "gpt2")
  config.model.encoder_init = config.model.decoder_init = "pretrained"
  config.model.init_std = -1.0
  this = loop.build_run(config, folder / "run")
  params = loop.first_state(this).params
  for side, table in (
    ("encoder", encoder.embeddings.word_embeddings),
    ("decoder", decoder.transformer.wte),
  ):
    ours = np.asarray(params[side]["embeddings"]["tokens"]["embedding"])
    theirs = table.weight.detach().numpy()
    np.testing.assert_array_equal(ours[: len(theirs)], theirs)
    # Rows up to the multiple are padding.
    assert len(ours) % 128 == 0 and not ours[len(theirs) :].any()
  cross = params["decoder"]["layers"]["cross_attention"]["query"]["kernel"]
  assert np.asarray(cross).std() > 0
  tokens = this.task.batch_tokens
  assert (tokens.start, tokens.end, tokens.target_pad) == (0, 0, 0)

  # A random decoder has the shape of its folder and nothing else of it.
  config.model.decoder_init = "random"
  mixed = initial_params.first_params(config, this.task.module)
  np.testing.assert_array_equal(
    np.asarray(mixed["encoder"]["embeddings"]["tokens"]["embedding"]),
    np.asarray(params["encoder"]["embeddings"]["tokens"]["embedding"]),
  )
  drawn = mixed["decoder"]["embeddings"]["tokens"]["embedding"]
  assert (np.asarray(drawn) != ours).any()
  config.model.encoder_init = "random"
  assert initial_params.first_params(config, this.task.module) is None


def test_every_architecture_has_a_tokenizer_to_train():
  kinds = {arch.TOKENIZER for arch in ARCHS.values()}
  assert kinds == tokenizers.TRAINERS.keys()


def test_a_roberta_preset_trains_its_tokenizer(pairs_folder, tiny_config):
  tiny_config.model.encoder = tiny_config.model.decoder = "roberta:tiny"
  tiny_config.data.target_vocab_size = 300
  task = build_task(tiny_config, pairs_folder / "run")
  start, end, pad = task.tokens.start, task.tokens.end, task.tokens.pad
  ids = [task.target_tokenizer.token_id(t) for t in ("<s>", "</s>", "<pad>")]
  assert [start, *end, pad] == ids
  assert task.module.config.decoder.position_offset == pad + 1


@pytest.mark.usefixtures("one_device")
def test_an_id_outside_the_vocabulary_is_refused(folders, tiny_config):
  folder, _, _ = folders
  path = folder / "gpt2/generation_config.json"
  path.write_text(json.dumps({"eos_token_id": 0, "pad_token_id": 50257}))
  tiny_config.model.decoder = str(folder / "gpt2")
  with pytest.raises(
    Refusal, match=r"pad token has the id 50257.*model\.pad_token"
  ):
    build_task(tiny_config, folder / "run")


@pytest.mark.usefixtures("one_device")
def test_a_run_that_began_needs_its_folder_alone(folders, tiny_config):
  folder, _, _ = folders
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.decoder = str(folder / "gpt2")
  config.model.encoder_init = config.model.decoder_init = "pretrained"
  config.model.start_token = "0"
  this = loop.build_run(config, folder / "run")
  record_task(this.task, folder / "run")
  (folder / "bert").rename(folder / "gone")
  again = restore_task(config, folder / "run")
  assert again.tokens == this.task.tokens
  assert again.module == this.task.module
  start = again.target_tokenizer.token_id("0")
  assert again.tokens.start == start != 0
  assert "model.*_token" in again.tokens.table()
  written = json.loads((folder / "run/model.json").read_text())
  assert written["tokens"]["start"] == start
  assert jax.tree.leaves(written["config"])


@pytest.mark.usefixtures("one_device")
def test_a_side_starts_from_some_of_its_layers(folders, tiny_config):
  folder, encoder, _ = folders
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.encoder_init = "pretrained"
  config.model.init_std = -1.0
  config.model.encoder_layers = (1,)
  this = loop.build_run(config, folder / "run")
  params = loop.first_state(this).params
  kernel = params["encoder"]["layers"]["mlp"]["up"]["kernel"]
  theirs = encoder.encoder.layer[1].intermediate.dense.weight.detach().numpy()
  np.testing.assert_array_equal(kernel, theirs.T[None])
  config.model.encoder_layers = (1, 2)
  with pytest.raises(ValueError, match=r"model.encoder_layers=.*from 0 to 1"):
    loop.build_run(config, folder / "other")


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
    loop.build_run(config, run)
  config.model.encoder_positions = 1024
  config.model.decoder_positions = 2048
  theirs = encoder.embeddings.position_embeddings.weight.detach().numpy()
  tables = {}
  for extension in ("repeat_last", "interpolate"):
    config.model.position_extension = extension
    this = loop.build_run(config, folder / extension)
    embeddings = loop.first_state(this).params["encoder"]["embeddings"]
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
    loop.build_run(config, folder / "other")


def _add_tokens(folder, tokens):
  inner = transformers.AutoTokenizer.from_pretrained(str(folder))
  assert inner.add_tokens(tokens) == len(tokens)
  inner.save_pretrained(str(folder))
  return len(inner)


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_added_tokens_get_rows_when_asked_for(folders, tiny_config, side):
  """Rows as PyTorch's resize_token_embeddings draws them: at the mean."""
  folder, encoder, decoder = folders
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.decoder = str(folder / "gpt2")
  config.model.encoder_init = config.model.decoder_init = "pretrained"
  config.model.init_std = -1.0
  name, theirs = {
    "encoder": ("bert", encoder),
    "decoder": ("gpt2", decoder),
  }[side]
  size = _add_tokens(folder / name, ["<hl>", "<sep2>"])
  kind = tokenizers.SIDES[side]
  with pytest.raises(
    Refusal,
    match=rf"data\.{kind}_tokenizer has {size} tokens, the {side} \({name}\) "
    rf"{size - 2}: .*model\.grow_vocabulary=True",
  ):
    loop.build_run(config, folder / "refused")
  config.model.grow_vocabulary = True
  this = loop.build_run(config, folder / "run")
  assert getattr(this.task.hub_config, side).vocab_size == size
  rows = np.asarray(
    loop.first_state(this).params[side]["embeddings"]["tokens"]["embedding"]
  )
  torch.manual_seed(0)
  theirs.resize_token_embeddings(size)
  table = theirs.get_input_embeddings().weight.detach().numpy()
  np.testing.assert_array_equal(rows[: size - 2], table[: size - 2])
  # PyTorch adds noise of a variance of 1e-9 times that of the rows.
  mean = table[: size - 2].astype(np.float64).mean(axis=0)
  np.testing.assert_allclose(rows[size - 2 : size], [mean, mean], atol=1e-6)
  np.testing.assert_allclose(table[size - 2 :], [mean, mean], atol=1e-4)
  # The rest is padding, as ever.
  assert len(rows) % 128 == 0 and not rows[size:].any()
  # The other side is as it was.
  other = tokenizers.SIDES.keys() - {side}
  for name in other:
    sizes = {"encoder": encoder, "decoder": decoder}
    assert (
      getattr(this.task.hub_config, name).vocab_size
      == sizes[name].config.vocab_size
    )


@pytest.mark.usefixtures("one_device")
def test_what_sides_lack_is_drawn_with_a_warning_or_left_out(
  folders, tiny_config, tmp_path, caplog
):
  """A BERT without pooler as encoder, and without head as decoder."""
  folder, encoder, _ = folders
  bare = transformers.BertModel(encoder.config, add_pooling_layer=False)
  bare.save_pretrained(folder / "bert")
  config = tiny_config
  config.model.encoder = config.model.decoder = str(folder / "bert")
  config.model.encoder_init = config.model.decoder_init = "pretrained"
  config.model.init_std = -1.0
  this = loop.build_run(config, folder / "run")
  with caplog.at_level("WARNING", logger="absl"):
    state = loop.first_state(this)
  assert "holds no language-model head" in caplog.text
  assert "pooler" not in state.params["encoder"]
  record_task(this.task, folder / "run")
  again = restore_task(config, folder / "run")
  assert again.module == this.task.module
  assert not again.module.config.encoder.pooler
  hub.save_folder(tmp_path / "hub", state.params, again.hub_config)
  _, info = transformers.EncoderDecoderModel.from_pretrained(
    tmp_path / "hub", output_loading_info=True
  )
  pooler = {f"encoder.pooler.dense.{name}" for name in ("weight", "bias")}
  assert info["missing_keys"] == pooler and not info["unexpected_keys"]


@pytest.mark.usefixtures("one_device")
def test_weights_that_do_not_fit_are_told_by_config_keys(folders, tiny_config):
  folder, _, decoder = folders
  config = tiny_config
  config.model.decoder = str(folder / "gpt2")
  config.model.decoder_init = "pretrained"
  state = decoder.state_dict()
  del state["transformer.ln_f.weight"]
  decoder.save_pretrained(folder / "gpt2", state_dict=state)
  with pytest.raises(hub.LoadingError, match=r"holds them in model\.decoder$"):
    loop.first_state(loop.build_run(config, folder / "run"))


@pytest.mark.parametrize(
  "raw",
  [
    b"\xff" * 4000,
    b"{}",
    json.dumps(
      {
        "config": {"model_type": "encoder-decoder", "encoder": "secret" * 999},
        "generation": None,
        "tokens": {},
      }
    ).encode(),
  ],
)
def test_a_damaged_model_of_a_run_is_named(tiny_config, tmp_path, raw):
  path = tmp_path / "model.json"
  path.write_bytes(raw)
  for side in ("source", "target"):
    made = training.train_wordpiece(TEXTS, 300)
    made.save(str(tmp_path / "tokenizers" / side))
  with pytest.raises(ValueError, match=str(path)) as caught:
    restore_task(tiny_config, tmp_path)
  assert len(str(caught.value)) < 500 + len(str(path))


def test_of_several_ends_the_tokenizers_own_is_put(tiny_config, tmp_path):
  config = tiny_config
  config.model.decoder = "mbart:tiny"
  config.data.target_tokenizer = translators.save("mbart", tmp_path / "mbart")
  config.data.target_language = "de_DE"
  task = build_task(config, tmp_path / "run")
  several = dataclasses.replace(task.tokens, end=(9, *task.tokens.end))
  task = dataclasses.replace(task, tokens=several)
  assert task.batch_tokens.end == task.target_tokenizer.eos_id
