"""Some of a checkpoint's layers make a smaller side."""

import numpy as np
import pytest
import torch
import transformers

from encdec import FlaxEncoderDecoderModel

compose = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained


BERT = {
  "vocab_size": 37,
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 40,
}


GPT2 = {"vocab_size": 41, "n_embd": 16, "n_layer": 1, "n_head": 2}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
  """Models of four layers, by architecture, and their folders."""
  torch.manual_seed(0)
  made = {}
  for name, model in (
    ("bert", transformers.BertModel(
      transformers.BertConfig(**{**BERT, "num_hidden_layers": 4}))),
    ("gpt2", transformers.GPT2LMHeadModel(
      transformers.GPT2Config(**{**GPT2, "n_layer": 4}))),
    ("bart", transformers.BartForConditionalGeneration(
      transformers.BartConfig(
        vocab_size=41, d_model=16, encoder_layers=2, decoder_layers=4,
        encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=40,
      ))),
  ):  # fmt: skip
    folder = str(tmp_path_factory.mktemp(name))
    model.save_pretrained(folder)
    made[name] = (folder, model)
  return made


@pytest.mark.parametrize(
  ("decoder", "leaf", "theirs"),
  [
    ("gpt2", ("mlp", "up", "bias"), "transformer.h.{}.mlp.c_fc.bias"),
    ("bart", ("mlp", "up", "bias"), "model.decoder.layers.{}.fc1.bias"),
  ],
)
def test_some_layers_make_a_smaller_side(deep, decoder, leaf, theirs):
  encoder, folder = deep["bert"][0], deep[decoder][0]
  for tensor in deep[decoder][1].parameters():
    torch.nn.init.normal_(tensor)
  deep[decoder][1].save_pretrained(folder)
  model = compose(
    encoder, folder, encoder_layers=(3, 1), decoder_layers=[0, 1, 3]
  )
  tensors = deep[decoder][1].state_dict()
  own = model.params["decoder"]["layers"]
  for name in leaf:
    own = own[name]
  expected = [tensors[theirs.format(n)].numpy() for n in (0, 1, 3)]
  np.testing.assert_array_equal(own, expected)
  rows = model.params["encoder"]["layers"]["mlp"]["up"]["kernel"]
  for row, number in zip(rows, (3, 1), strict=True):
    name = f"encoder.layer.{number}.intermediate.dense.weight"
    theirs_kernel = deep["bert"][1].state_dict()[name].numpy().T
    np.testing.assert_array_equal(row, theirs_kernel)
  assert model.config.encoder.num_hidden_layers == 2


@pytest.mark.parametrize("layers", [(), (0, 4), (-1,), "01", 2, (True,)])
def test_layers_that_are_not_there_are_refused(deep, layers):
  with pytest.raises(ValueError, match=r"decoder_layers=.*from 0 to 3"):
    compose(deep["bert"][0], deep["gpt2"][0], decoder_layers=layers)
