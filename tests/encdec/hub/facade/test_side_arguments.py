"""Keywords and models of each side make a pair."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from encdec import FlaxEncoderDecoderModel
from encdec.hub.weights import tensor_map

compose = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained


def _assert_side(model, side, torch_model):
  """Every tensor of the PyTorch model that the side has is in it."""
  tensors = {k: v.numpy() for k, v in torch_model.state_dict().items()}
  config = model.module.config
  own = tensor_map.in_composite(tensors, side, getattr(config, side))
  leaves = traverse_util.flatten_dict(model.params, sep="/")
  held = [s for s in tensor_map.tensor_mappings(config) if s.name in own]
  assert held
  for mapping in held:
    leaf = mapping.cut(np.asarray(leaves[mapping.path]))
    wanted = mapping.from_hub(tensors[own[mapping.name]])
    np.testing.assert_array_equal(leaf, wanted, err_msg=mapping.name)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
  ("encoder", "decoder"),
  [
    ("bert", "gpt2-lm"),
    ("bert-masked", "bert-masked"),
    ("bert-pretraining", "bert-pretraining"),
    ("bert-classifier", "gpt2"),
    ("roberta-masked", "roberta-masked"),
    ("electra-pretraining", "electra-masked"),
    ("distilbert-masked", "gpt2"),
    ("albert-pretraining", "gpt2-lm"),
    ("albert-masked", "prelayernorm-masked"),
  ],
)
def test_models_with_and_without_a_head_or_a_prefix(saved, encoder, decoder):
  model = compose(saved[encoder][0], saved[decoder][0])
  _assert_side(model, "encoder", saved[encoder][1])
  _assert_side(model, "decoder", saved[decoder][1])
  report = model.loading_report
  assert not report.missing + report.unexpected + report.mismatched
  assert report.initialised and set(report.initialised) == set(report.expected)
  cross = [n for n in report.expected if "cross" in n or "q_attn" in n]
  pooler = [n for n in report.expected if ".pooler." in n]
  assert len(cross) + len(pooler) == len(report.expected)
  poolerless = ("bert-masked", "roberta-masked", "albert-masked")
  assert bool(pooler) == (encoder in poolerless)


def test_ready_models(saved):
  by_name = compose(saved["bert"][0], saved["gpt2-lm"][0])
  ready = compose(
    encoder_model=saved["bert"][1], decoder_model=saved["gpt2-lm"][1]
  )
  jax.tree.map(np.testing.assert_array_equal, ready.params, by_name.params)
  ours = compose(encoder_model=by_name, decoder_model=by_name, seed=3)
  jax.tree.map(np.testing.assert_array_equal, ours.params, by_name.params)
  with pytest.raises(ValueError, match="encoder_model is a str"):
    compose(encoder_model="bert", decoder_model=by_name)
  with pytest.raises(ValueError, match="the decoder is missing"):
    compose(saved["bert"][0])


def test_keywords_find_their_side(saved):
  model = compose(
    saved["bert"][0],
    saved["gpt2-lm"][0],
    encoder_hidden_dropout_prob=0.3,
    decoder_attn_pdrop=0.0,
    decoder_start_token_id=7,
    pad_token_id=5,
    local_files_only=True,
    encoder_from_pt=True,
  )
  config = model.config
  assert config.encoder.hidden_dropout_prob == 0.3
  assert config.decoder.attn_pdrop == 0.0
  assert config.decoder_start_token_id == 7 and config.pad_token_id == 5
  assert model.module.config.decoder.attention_dropout == 0.0
  assert config.decoder.is_decoder and config.decoder.add_cross_attention
  assert not config.encoder.is_decoder
  with pytest.raises(TypeError, match="has no 'hidden_drop'"):
    compose(saved["bert"][0], saved["gpt2"][0], encoder_hidden_drop=0.1)
  for name in ("_do_init", "initialize_missing", "shares"):
    with pytest.raises(TypeError, match=f"{name}=True: neither an option nor"):
      compose(saved["bert"][0], saved["gpt2-lm"][0], **{name: True})


@pytest.mark.parametrize(
  "kwargs", [{"share": "all"}, {"tie_encoder_decoder": True}]
)
def test_sides_of_different_architectures_share_nothing(saved, kwargs):
  with pytest.raises(ValueError, match=r"share='all'.*name \(bert, gpt2\)"):
    compose(saved["bert"][0], saved["gpt2-lm"][0], **kwargs)


def test_gpt2_is_no_encoder(saved):
  with pytest.raises(ValueError, match="gpt2 cannot be the encoder"):
    compose(saved["gpt2"][0], saved["gpt2"][0])
