"""Longer tables of positions: extended, composed, saved, read by PyTorch."""

import jax
import numpy as np
import pytest
import torch
import transformers

from encdec import FlaxEncoderDecoderModel
from encdec.hub import LoadingError
from encdec.hub.weights.position_tables import extended

compose = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained
SHAPE = {
  "vocab_size": 37,
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 24,
}
WHOLE = {
  "vocab_size": 37,
  "d_model": 16,
  "encoder_layers": 1,
  "decoder_layers": 1,
  "encoder_attention_heads": 2,
  "decoder_attention_heads": 2,
  "encoder_ffn_dim": 24,
  "decoder_ffn_dim": 24,
  "max_position_embeddings": 20,
}
# All of 20 positions; then what the config says of 50.
MODELS = {
  "bert": (transformers.BertForMaskedLM(transformers.BertConfig(
    **SHAPE, max_position_embeddings=20)), 50),
  "roberta": (transformers.RobertaForMaskedLM(transformers.RobertaConfig(
    **SHAPE, max_position_embeddings=22, pad_token_id=1)), 52),
  "distilbert": (transformers.DistilBertModel(transformers.DistilBertConfig(
    vocab_size=37, dim=16, n_layers=1, n_heads=2, hidden_dim=24,
    max_position_embeddings=20)), 50),
  "gpt2": (transformers.GPT2LMHeadModel(transformers.GPT2Config(
    vocab_size=37, n_embd=16, n_layer=1, n_head=2, n_positions=20)), 50),
  "bart": (transformers.BartForConditionalGeneration(
    transformers.BartConfig(**WHOLE, forced_eos_token_id=None)), 50),
  "pegasus": (transformers.PegasusForCausalLM(transformers.PegasusConfig(
    **WHOLE, forced_eos_token_id=None)), 50),
  "xglm": (transformers.XGLMForCausalLM(transformers.XGLMConfig(
    vocab_size=37, d_model=16, num_layers=1, attention_heads=2, ffn_dim=24,
    max_position_embeddings=20)), 50),
}  # fmt: skip
PAIRS = [("bert", "gpt2"), ("roberta", "bart"), ("distilbert", "roberta")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """The folders, by the names above."""
  made = {}
  for name, (model, _) in MODELS.items():
    made[name] = str(tmp_path_factory.mktemp(name))
    model.save_pretrained(made[name])
  return made


def _table(model, side):
  embeddings = model.params[side]["embeddings"]
  return np.asarray(embeddings["positions"]["embedding"])


def _assert_pytorchs_logits(model, folder, length=45):
  """At rows that no checkpoint had positions for."""
  model.save_pretrained(folder)
  theirs, info = transformers.EncoderDecoderModel.from_pretrained(
    folder, output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  rng = np.random.default_rng(0)
  source, target = rng.integers(5, 37, (2, 2, length))
  with torch.no_grad():
    expected = theirs.eval()(
      input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(target)
    ).logits
  ours = model(source, decoder_input_ids=target).logits
  np.testing.assert_allclose(ours, expected, atol=1e-4)
  again = FlaxEncoderDecoderModel.from_pretrained(folder)
  jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


@pytest.mark.parametrize("reserved", [0, 2])
def test_a_longer_table(reserved):
  rng = np.random.default_rng(0)
  table = rng.normal(size=(5 + reserved, 3)).astype(np.float32)
  repeated = extended(table, 9 + reserved, reserved, "repeat_last")
  np.testing.assert_array_equal(repeated[: len(table)], table)
  assert (repeated[len(table) :] == table[-1]).all() and len(repeated) == (
    9 + reserved
  )
  stretched = extended(table, 9 + reserved, reserved, "interpolate")
  assert stretched.shape == (9 + reserved, 3)
  np.testing.assert_array_equal(stretched[:reserved], table[:reserved])
  own, learned = stretched[reserved:], table[reserved:]
  # Nine rows over five: every second one is an old one, the rest between.
  np.testing.assert_allclose(own[::2], learned, rtol=1e-6)
  middle = (learned[1:] + learned[:-1]) / 2
  np.testing.assert_allclose(own[1::2], middle, atol=1e-6)
  one = extended(table[: reserved + 1], reserved + 4, reserved, "interpolate")
  assert (one[reserved:] == table[reserved]).all()


@pytest.mark.sample(1)
@pytest.mark.parametrize("extension", ["repeat_last", "interpolate"])
@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_composed_with_longer_tables(
  saved, tmp_path, encoder, decoder, extension
):
  plain = compose(saved[encoder], saved[decoder])
  model = compose(
    saved[encoder],
    saved[decoder],
    encoder_max_position_embeddings=MODELS[encoder][1],
    decoder_max_position_embeddings=MODELS[decoder][1],
    encoder_position_extension=extension,
    decoder_position_extension=extension,
  )
  for side in ("encoder", "decoder"):
    assert getattr(model.module.config, side).max_positions == 50
    offset = getattr(model.module.config, side).position_offset
    expected = extended(_table(plain, side), 50 + offset, offset, extension)
    np.testing.assert_array_equal(_table(model, side), expected)
  _assert_pytorchs_logits(model, tmp_path / extension)


@pytest.mark.sample(1)
@pytest.mark.parametrize("decoder", ["pegasus", "xglm"])
def test_computed_tables_need_no_extension(saved, tmp_path, decoder):
  kwargs = {
    "encoder_max_position_embeddings": 50,
    "encoder_position_extension": "repeat_last",
    "decoder_max_position_embeddings": 50,
  }
  model = compose(saved["bert"], saved[decoder], **kwargs)
  _assert_pytorchs_logits(model, tmp_path / decoder)
  with pytest.raises(ValueError, match="computed for any length; leave it"):
    compose(
      saved["bert"],
      saved[decoder],
      **kwargs,
      decoder_position_extension="repeat_last",
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_a_loaded_model_takes_longer_rows(saved, tmp_path, side):
  model = compose(saved["roberta"], saved["bart"])
  before = _table(model, side)
  with pytest.raises(ValueError, match=r"45 tokens long.*ends at 20"):
    model(np.ones((1, 45), int) * 7, decoder_input_ids=np.ones((1, 45), int))
  length = {"encoder": 52, "decoder": 50}
  for one, count in length.items():
    model.resize_position_embeddings(count, side=one, extension="interpolate")
    assert getattr(model.config, one).max_position_embeddings == count
  np.testing.assert_array_equal(
    _table(model, side), extended(before, 52, 2, "interpolate")
  )
  _assert_pytorchs_logits(model, tmp_path)


def test_shared_tables_are_extended_together(saved, tmp_path):
  model = compose(saved["bert"], saved["bert"], share="all")
  with pytest.raises(ValueError, match=r"share their positions.*side='both'"):
    model.resize_position_embeddings(
      50, side="encoder", extension="repeat_last"
    )
  model.resize_position_embeddings(50, side="both", extension="repeat_last")
  _assert_pytorchs_logits(model, tmp_path / "resized")
  options = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in (
      ("max_position_embeddings", 50),
      ("position_extension", "repeat_last"),
    )
  }
  composed = compose(saved["bert"], saved["bert"], share="all", **options)
  table = _table(composed, "encoder")
  np.testing.assert_array_equal(table, _table(model, "encoder"))
  # Of the tokens alone, each side has positions of its own.
  model = compose(saved["bert"], saved["bert"], share="embeddings")
  model.resize_position_embeddings(50, side="decoder", extension="repeat_last")
  assert len(_table(model, "encoder")) == 20


@pytest.mark.parametrize(
  ("kwargs", "error", "message"),
  [
    ({"max_position_embeddings": 50}, LoadingError,
     r"position_embeddings.*\[20, 16\].*encoder_ or decoder_position_ext"),
    ({"max_position_embeddings": 50, "position_extension": "mean"},
     ValueError, "encoder_position_extension='mean' must be one of"),
    ({"max_position_embeddings": 10, "position_extension": "repeat_last"},
     ValueError, "20 positions, which cannot become 10"),
    ({"position_extension": "repeat_last"}, ValueError, "keeps its 20"),
  ],
)  # fmt: skip
def test_what_extends_nothing_is_refused(saved, kwargs, error, message):
  options = {f"encoder_{name}": value for name, value in kwargs.items()}
  with pytest.raises(error, match=message):
    compose(saved["bert"], saved["gpt2"], **options)
  model = compose(saved["bert"], saved["gpt2"])
  count = kwargs.get("max_position_embeddings", 20)
  extension = kwargs.get("position_extension")
  before = model.params
  with pytest.raises(ValueError):
    model.resize_position_embeddings(count, side="encoder", extension=extension)
  assert model.params is before
  assert model.config.encoder.max_position_embeddings == 20
