"""Decoders that PyTorch keeps in whole models: BART's kind, and XGLM."""

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from encdec import FlaxEncoderDecoderModel
from encdec.archs import ARCHS
from encdec.hub import LoadingError
from encdec.hub.files import weight_files
from encdec.layers.positions import sinusoids

compose = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained
BERT = {
  "vocab_size": 37,
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 40,
}
WHOLE = {
  "vocab_size": 41,
  "d_model": 16,
  "encoder_layers": 2,
  "decoder_layers": 2,
  "encoder_attention_heads": 2,
  "decoder_attention_heads": 2,
  "encoder_ffn_dim": 24,
  "decoder_ffn_dim": 24,
  "max_position_embeddings": 40,
  "pad_token_id": 1,
  "decoder_start_token_id": 3,
}
CLASSES = {
  "Bart": "BartForConditionalGeneration",
  "MBart": "MBartForConditionalGeneration",
  "Pegasus": "PegasusForConditionalGeneration",
  "Marian": "MarianMTModel",
  "Blenderbot": "BlenderbotForConditionalGeneration",
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("bert")
  transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(
    folder
  )
  return str(folder)


def _whole(kind, base=False):
  config = getattr(transformers, f"{kind}Config")(**WHOLE)
  name = f"{kind}Model" if base else CLASSES[kind]
  torch.manual_seed(0)
  model = getattr(transformers, name)(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.requires_grad:
        parameter.add_(0.1 * torch.randn(parameter.shape))
  return model


@pytest.mark.sample(2)
@pytest.mark.parametrize(
  ("kind", "base"),
  [*((kind, False) for kind in CLASSES), ("Bart", True), ("Marian", True)],
)
def test_a_whole_model_gives_its_decoder(encoder, tmp_path, kind, base):
  """With the shared embeddings, which PyTorch's causal model draws anew."""
  whole = _whole(kind, base)
  whole.save_pretrained(tmp_path)
  model = compose(encoder, str(tmp_path))
  report = model.loading_report
  assert not report.missing + report.unexpected + report.mismatched
  # The checkpoint has cross-attention, and BERT a pooler.
  assert not report.initialised
  if not base:
    assert "final_logits_bias" in report.unused
  inner = whole if base else whole.model
  causal = getattr(transformers, f"{kind}ForCausalLM")(whole.config).eval()
  causal.model.decoder.load_state_dict(inner.decoder.state_dict())
  causal.tie_weights()
  ids = np.array([[3, 9, 8, 7], [3, 5, 6, 30]])
  states = np.random.default_rng(0).normal(size=(2, 5, 16)).astype(np.float32)
  with torch.no_grad():
    theirs = causal(
      input_ids=torch.tensor(ids),
      encoder_hidden_states=torch.tensor(states),
      use_cache=False,
    ).logits
  ours = model.decode(ids, (jnp.asarray(states),)).logits
  np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["roberta-pegasus", "bert-mbart", "bert-xglm"])
def test_embeddings_in_place_of_ids_are_scaled_as_pytorchs(
  pairs, make_inputs, assert_close, name
):
  """Pegasus scales what it is given; mBART takes it for scaled."""
  pair = pairs(name, vocab_multiple=1)
  model = FlaxEncoderDecoderModel(pair.torch_model.config, _do_init=False)
  inputs = make_inputs(pair.config, "right")
  ids = torch.tensor(inputs.decoder_tokens).long()
  table = pair.torch_model.decoder.get_input_embeddings()
  with torch.no_grad():
    embeds = table(ids)
    theirs = pair.torch_model(
      input_ids=torch.tensor(inputs.tokens).long(),
      decoder_inputs_embeds=embeds,
    ).logits
  ours = model(
    inputs.tokens,
    decoder_inputs_embeds=jnp.asarray(embeds.numpy()),
    params=pair.params,
  )
  assert_close(ours.logits, theirs)


def test_given_positions_of_xglm_count_from_0(pairs, make_inputs, assert_close):
  pair = pairs("bert-xglm", vocab_multiple=1)
  model = FlaxEncoderDecoderModel(pair.torch_model.config, _do_init=False)
  inputs = make_inputs(pair.config, "right")
  positions = np.arange(7)[::-1][None].copy()
  with torch.no_grad():
    theirs = pair.torch_model(
      input_ids=torch.tensor(inputs.tokens).long(),
      decoder_input_ids=torch.tensor(inputs.decoder_tokens).long(),
      decoder_position_ids=torch.tensor(positions),
    ).logits
  kwargs = {
    "input_ids": inputs.tokens,
    "decoder_input_ids": inputs.decoder_tokens,
    "params": pair.params,
  }
  ours = model(**kwargs, decoder_position_ids=positions).logits
  assert_close(ours, theirs)
  assert np.abs(ours - model(**kwargs).logits).max() > 0.1


@pytest.mark.parametrize("pad", [1, 6])
def test_computed_positions_are_pytorchs(pad):
  ids = {"pad_token_id": pad, "max_position_embeddings": 60}
  xglm = transformers.XGLMConfig(d_model=64, num_layers=1, vocab_size=9, **ids)
  marian = transformers.MarianConfig(**WHOLE | ids)
  table = transformers.XGLMModel(xglm).embed_positions.weights
  ours = sinusoids(ARCHS["xglm"].stack_config(xglm.to_dict(), "decoder"))
  np.testing.assert_allclose(ours, table, atol=1e-7)
  # The padding id's row, where a token may well stand.
  assert not ours[pad].any() and ours[pad + 1].any()
  model = transformers.MarianForCausalLM(marian)
  table = model.model.decoder.embed_positions.weight.detach()
  ours = sinusoids(ARCHS["marian"].stack_config(marian.to_dict(), "decoder"))
  np.testing.assert_array_equal(ours, table)


def test_another_table_of_positions_is_refused(pairs, tmp_path):
  pairs("roberta-pegasus").torch_model.save_pretrained(tmp_path)
  path = tmp_path / weight_files.SINGLE
  tensors = {
    k: np.array(v) for k, v in weight_files.open_weights(tmp_path).items()
  }
  name = "decoder.model.decoder.embed_positions.weight"
  tensors[name][3, 2] += 0.01
  _write(path, tensors)
  with pytest.raises(LoadingError, match=r"embed_positions.*differs by 1\.0e-"):
    FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  tensors[name] = tensors[name][:-1]
  _write(path, tensors)
  with pytest.raises(LoadingError, match=r"\[39, 32\]; the config implies"):
    FlaxEncoderDecoderModel.from_pretrained(tmp_path)


def _write(path, tensors):
  state = {k: torch.tensor(v).contiguous() for k, v in tensors.items()}
  safetensors.torch.save_file(state, path)


def test_old_xglm_files_hold_a_table_that_is_not_needed(pairs, encoder):
  torch_model = pairs("bert-xglm").torch_model
  state = {k: v.numpy() for k, v in torch_model.decoder.state_dict().items()}

  class Old:
    config = torch_model.config.decoder

    def state_dict(self):
      weights = torch_model.decoder.model.embed_positions.weights
      table = {"model.embed_positions.weights": weights}
      return {k: torch.tensor(v) for k, v in state.items()} | table

  # A decoder of a pair of two widths, without their projection.
  with pytest.warns(UserWarning, match="not the projection"):
    model = compose(encoder, decoder_model=Old())
  assert not model.loading_report.missing + model.loading_report.unexpected
