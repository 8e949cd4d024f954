"""The projection between widths, in a pair and in the halves of one."""

import numpy as np
import pytest
import torch
import transformers

from encdec import FlaxEncoderDecoderModel
from encdec.hub import compose_config

SHAPE = {
  "vocab_size": 37,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 40,
}
NAMES = {"enc_to_dec_proj.weight", "enc_to_dec_proj.bias"}


def _encoder(width):
  return transformers.BertConfig(**SHAPE, hidden_size=width)


@pytest.fixture(scope="session")
def halves(random_model, tmp_path_factory):
  """A pair of widths 16 and 24 with large weights, and its two halves."""
  folder = tmp_path_factory.mktemp("halves")
  model = random_model(compose_config(_encoder(16), _encoder(24)))
  model.save_pretrained(folder / "pair")
  for part in ("encoder", "decoder"):
    model.save_pretrained(folder / part, part=part)
  return folder, model


def _ids():
  rng = np.random.default_rng(0)
  return rng.integers(5, 37, (2, 6)), rng.integers(5, 37, (2, 4))


def _logits(model):
  source, target = _ids()
  return np.asarray(model(source, decoder_input_ids=target).logits)


def _composed(folder, encoder="encoder", **options):
  return FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(
    folder / encoder, folder / "decoder", **options
  )


def test_halves_make_the_pair_again(halves):
  folder, model = halves
  again = _composed(folder)
  assert not NAMES & set(again.loading_report.initialised)
  source, target = (torch.tensor(ids) for ids in _ids())
  theirs = transformers.EncoderDecoderModel.from_pretrained(folder / "pair")
  with torch.no_grad():
    wanted = theirs.eval()(input_ids=source, decoder_input_ids=target).logits
  np.testing.assert_allclose(_logits(again), wanted.numpy(), atol=1e-5)
  # In memory they are the same halves.
  held = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(
    encoder_model=model, decoder_model=model
  )
  np.testing.assert_array_equal(_logits(held), _logits(again))


def test_pytorch_loads_the_half_with_nothing_missing(halves):
  folder, _ = halves
  _, info = transformers.AutoModelForCausalLM.from_pretrained(
    folder / "decoder", output_loading_info=True
  )
  assert not info["missing_keys"] and not info["mismatched_keys"]
  assert set(info["unexpected_keys"]) == NAMES


def test_a_projection_that_is_gone_is_told(halves, tmp_path):
  """PyTorch's halves have none: what is drawn instead must be trained."""
  folder, _ = halves
  theirs = transformers.EncoderDecoderModel.from_pretrained(folder / "pair")
  theirs.encoder.save_pretrained(tmp_path / "encoder")
  theirs.decoder.save_pretrained(tmp_path / "decoder")
  with pytest.warns(UserWarning, match=r"not the projection .*enc_to_dec_proj"):
    model = _composed(tmp_path)
  assert set(model.loading_report.projection) == NAMES


def test_one_of_another_width_is_left_aside(halves, tmp_path):
  folder, _ = halves
  decoder = folder / "decoder"
  for width, told in ((16, ""), (8, "not the projection"), (24, "no place")):
    name = f"encoder-{width}"
    transformers.BertModel(_encoder(width)).save_pretrained(tmp_path / name)

    def compose(name=name):
      return FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(
        tmp_path / name, decoder
      )

    if told:
      with pytest.warns(UserWarning, match=told):
        report = compose().loading_report
    else:
      report = compose().loading_report
    assert (set(report.unused) >= NAMES) == (width != 16)
    assert (set(report.initialised) >= NAMES) == (width == 8)


def test_a_fresh_decoder_draws_its_projection_in_silence(halves, tmp_path):
  folder, _ = halves
  transformers.BertLMHeadModel(
    transformers.BertConfig(**SHAPE, hidden_size=24, is_decoder=True)
  ).save_pretrained(tmp_path / "decoder")
  model = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(
    folder / "encoder", tmp_path / "decoder"
  )
  assert NAMES <= set(model.loading_report.expected)
  assert model.loading_report.warning() is None
