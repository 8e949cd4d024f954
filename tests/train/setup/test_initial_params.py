"""The parameters that a run starts from are those of its checkpoints."""

import numpy as np
import pytest
import torch
import transformers

from encdec import hub
from train import start
from train.errors import Refusal
from train.setup import initial_params, tokenizers
from train.setup.task import record_task, restore_task


@pytest.mark.usefixtures("one_device")
def test_pretrained_sides_start_from_their_weights(folders, tiny_config):
  folder, encoder, decoder = folders
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.decoder = str(folder / "gpt2")
  config.model.encoder_init = config.model.decoder_init = "pretrained"
  config.model.init_std = -1.0
  this = start.build_run(config, folder / "run")
  params = start.first_state(this).params
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
    start.build_run(config, folder / "refused")
  config.model.grow_vocabulary = True
  this = start.build_run(config, folder / "run")
  assert getattr(this.task.hub_config, side).vocab_size == size
  rows = np.asarray(
    start.first_state(this).params[side]["embeddings"]["tokens"]["embedding"]
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
  this = start.build_run(config, folder / "run")
  with caplog.at_level("WARNING", logger="absl"):
    state = start.first_state(this)
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
    start.first_state(start.build_run(config, folder / "run"))


@pytest.mark.usefixtures("one_device")
def test_a_random_encoder_shares_the_table_of_a_pretrained_decoder(
  folders, tiny_config, caplog
):
  """The row RND2GPT: one tokenizer, GPT-2's, and one table, trained."""
  folder, _, decoder = folders
  values = decoder.config.to_dict() | {"n_embd": 96, "n_head": 4}
  decoder = transformers.GPT2LMHeadModel(transformers.GPT2Config(**values))
  decoder.save_pretrained(folder / "gpt2")
  size = _add_tokens(folder / "gpt2", ["<hl>"])
  config = tiny_config
  config.model.encoder = "bert:tiny"
  config.model.decoder = str(folder / "gpt2")
  config.model.decoder_init = "pretrained"
  config.model.init_std = -1.0
  config.model.share = "embeddings"
  config.model.grow_vocabulary = True
  config.data.source_tokenizer = str(folder / "gpt2")
  config.data.target_tokenizer = str(folder / "gpt2")
  config.data.target_vocab_size = config.data.source_vocab_size
  this = start.build_run(config, folder / "run")
  assert this.task.module.config.encoder.vocab_size == size
  with caplog.at_level("INFO", logger="absl"):
    params = start.first_state(this).params
  assert "stored once: decoder.transformer.wte.weight" in caplog.text
  table = np.asarray(params["encoder"]["embeddings"]["tokens"]["embedding"])
  theirs = decoder.transformer.wte.weight.detach().numpy()
  np.testing.assert_array_equal(table[: size - 1], theirs)
  # The new token's row is at the mean, and those behind it are padding.
  np.testing.assert_allclose(table[size - 1], theirs.mean(axis=0), atol=1e-6)
  assert len(table) % 128 == 0 and not table[size:].any()


@pytest.mark.usefixtures("one_device")
def test_a_decoders_table_starts_as_a_copy_of_the_encoders(
  folders, tiny_config, tmp_path
):
  folder, encoder, _ = folders
  values = encoder.config.to_dict() | {"hidden_size": 96}
  encoder = transformers.BertModel(transformers.BertConfig(**values))
  encoder.save_pretrained(folder / "bert")
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.encoder_init = "pretrained"
  config.model.decoder = "pegasus:tiny"
  config.model.decoder_embeddings_init = "encoder"
  config.data.target_tokenizer = str(folder / "bert")
  this = start.build_run(config, folder / "run")
  params = start.first_state(this).params
  one, other = (
    np.asarray(params[side]["embeddings"]["tokens"]["embedding"])
    for side in ("encoder", "decoder")
  )
  theirs = encoder.embeddings.word_embeddings.weight.detach().numpy()
  np.testing.assert_array_equal(one[: len(theirs)], theirs)
  # A copy: two arrays, each with its own gradient.
  np.testing.assert_array_equal(other, one)
  hub.save_folder(tmp_path / "hub", params, this.task.hub_config)
  model, info = transformers.EncoderDecoderModel.from_pretrained(
    tmp_path / "hub", output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  tables = [
    model.decoder.get_input_embeddings(),
    model.decoder.get_output_embeddings(),
  ]
  for table in tables:
    np.testing.assert_array_equal(table.weight.detach().numpy(), theirs)

  config.model.decoder_embeddings_init = ""
  drawn = initial_params.first_params(config, this.task.module)
  assert (drawn["decoder"]["embeddings"]["tokens"]["embedding"] != one).any()


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"model.encoder_init": "random"}, r"model\.encoder_init = 'random'"),
    ({"model.share": "embeddings"}, r"model\.share = 'embeddings'"),
    ({"model.decoder": "gpt2:mini"}, r"embedding_width \(32, 128\)"),
    ({"data.target_tokenizer": "gpt2"}, "tokenizers of the sides differ"),
  ],
)
def test_a_table_that_cannot_be_copied_is_refused(
  folders, tiny_config, changes, said
):
  folder, _, _ = folders
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.encoder_init = "pretrained"
  config.model.decoder_embeddings_init = "encoder"
  config.data.source_tokenizer = str(folder / "bert")
  config.data.target_tokenizer = str(folder / "bert")
  config.data.target_vocab_size = config.data.source_vocab_size
  if "data.target_tokenizer" in changes:
    changes = {"data.target_tokenizer": str(folder / "gpt2")}
  if "model.share" in changes:
    changes = changes | {"model.decoder": str(folder / "bert")}
  config.update_from_flattened_dict(changes)
  with pytest.raises(
    Refusal, match=rf"model\.decoder_embeddings_init = 'encoder'.*{said}"
  ):
    start.build_run(config, folder / "run")
