"""Vocabularies that grow and shrink: rows, heads, configs, PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import traverse_util

from encdec import FlaxEncoderDecoderModel
from encdec.archs import ARCHS
from encdec.config import EncDecConfig, StackConfig
from encdec.hub import compose_config
from encdec.hub.facade.resize import NewRows, resize_vocabulary
from encdec.model import (
  FlaxEncoderDecoderModule,
  param_shapes,
)

SHAPE = {
  "vocab_size": 37,
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 40,
  "bos_token_id": 3,
  "eos_token_id": 4,
}
GPT2 = {"vocab_size": 37, "n_embd": 16, "n_layer": 1, "n_head": 2}
DECODERS = {
  "bert": transformers.BertConfig(**SHAPE),
  "bert-untied": transformers.BertConfig(**SHAPE, tie_word_embeddings=False),
  "gpt2-untied": transformers.GPT2Config(
    **GPT2, bos_token_id=3, eos_token_id=4, tie_word_embeddings=False
  ),
  "marian": transformers.MarianConfig(
    vocab_size=37, d_model=16, decoder_layers=1, encoder_layers=1,
    decoder_attention_heads=2, encoder_attention_heads=2, decoder_ffn_dim=24,
    encoder_ffn_dim=24, max_position_embeddings=40, pad_token_id=1,
    bos_token_id=3, eos_token_id=4, decoder_start_token_id=3,
    forced_eos_token_id=None,
  ),
}  # fmt: skip


@pytest.fixture
def make(random_model):
  """`make(decoder="bert", share="none")`: a model that may be changed."""

  def model(decoder="bert", share="none"):
    config = compose_config(transformers.BertConfig(**SHAPE), DECODERS[decoder])
    if share != "none":
      config.share = share
    return random_model(config)

  return model


def _ids():
  rng = np.random.default_rng(0)
  return rng.integers(5, 30, (2, 6)), rng.integers(5, 30, (2, 4))


def _pytorch(model, folder):
  model.save_pretrained(folder)
  theirs, info = transformers.EncoderDecoderModel.from_pretrained(
    folder, output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  source, target = _ids()
  with torch.no_grad():
    return theirs.eval()(
      input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(target)
    ).logits.numpy()


@pytest.mark.sample(1)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [45, 31])
def test_pytorch_loads_a_resized_decoder(make, decoder, size, tmp_path):
  model = make(decoder)
  source, target = _ids()
  before = np.asarray(model(source, decoder_input_ids=target).logits)
  assert before.shape[-1] == 37
  model.resize_token_embeddings(size, side="decoder")
  assert model.config.decoder.vocab_size == size
  assert model.config.encoder.vocab_size == 37
  ours = np.asarray(model(source, decoder_input_ids=target).logits)
  kept = min(size, 37)
  np.testing.assert_allclose(ours[..., :kept], before[..., :kept], atol=1e-6)
  theirs = _pytorch(model, tmp_path)
  assert theirs.shape == ours.shape
  np.testing.assert_allclose(ours, theirs, atol=1e-4)
  again = FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_new_rows_are_the_mean_as_pytorchs_are(make, tmp_path):
  """PyTorch draws around the mean with all but no deviation."""
  model = make("bert-untied")
  _pytorch(model, tmp_path)
  theirs = transformers.EncoderDecoderModel.from_pretrained(tmp_path).decoder
  theirs.resize_token_embeddings(45)
  model.resize_token_embeddings(45, side="decoder")
  own = model.params["decoder"]
  for ours, tensor in (
    (own["embeddings"]["tokens"]["embedding"], theirs.get_input_embeddings()),
    (own["head"]["kernel"].T, theirs.get_output_embeddings()),
  ):
    expected = tensor.weight.detach().numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-3)
    assert np.ptp(np.asarray(ours)[37:], axis=0).max() == 0
  bias = np.asarray(own["head"]["bias"])
  np.testing.assert_allclose(bias[37:], bias[:37].mean(), rtol=1e-5)


def test_an_encoder_grows_by_drawn_rows(make):
  model = make()
  before = np.asarray(
    model.params["encoder"]["embeddings"]["tokens"]["embedding"]
  )
  key = jax.random.key(3)
  held = model.params
  tree = model.resize_token_embeddings(
    2037, side="encoder", init="normal", init_std=0.5, key=key
  )
  table = np.asarray(tree["encoder"]["embeddings"]["tokens"]["embedding"])
  np.testing.assert_array_equal(table[:37], before)
  assert abs(table[37:].std() - 0.5) < 0.02 and abs(table[37:].mean()) < 0.02
  assert model.params is tree
  # Another key draws others; the same one the same.
  tables = []
  for seed in (3, 4):
    again = make()
    tree = again.resize_token_embeddings(
      2037, side="encoder", init="normal", init_std=0.5,
      key=jax.random.key(seed), params=held,
    )  # fmt: skip
    tables.append(tree["encoder"]["embeddings"]["tokens"]["embedding"])
  np.testing.assert_array_equal(tables[0], table)
  assert not np.array_equal(tables[1], table)


@pytest.mark.sample(1)
@pytest.mark.parametrize("share", ["embeddings", "all"])
def test_shared_vocabularies_are_resized_together(make, share, tmp_path):
  model = make(share=share)
  assert "tokens" not in model.params["decoder"].get("embeddings", {})
  for side in ("encoder", "decoder"):
    with pytest.raises(ValueError, match=rf"share='{share}'.*side='both'"):
      model.resize_token_embeddings(45, side=side)
  model.resize_token_embeddings(45, side="both")
  source, target = _ids()
  ours = np.asarray(model(source, decoder_input_ids=target).logits)
  np.testing.assert_allclose(ours, _pytorch(model, tmp_path), atol=1e-4)
  again = FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_a_model_that_holds_no_params_is_resized(make):
  whole = make()
  model = FlaxEncoderDecoderModel(whole.config, _do_init=False)
  with pytest.raises(ValueError, match="holds no params"):
    model.resize_token_embeddings(45, side="decoder")
  tree = model.resize_token_embeddings(45, side="decoder", params=whole.params)
  source, target = _ids()
  logits = model(source, decoder_input_ids=target, params=tree).logits
  assert logits.shape[-1] == 45
  # What the old size compiled and kept is not used.
  tokens = model.generate(source, params=tree, decoder_start_token_id=3)
  assert tokens.sequences.shape[0] == 2


def test_padding_rows_stay_zero(random_params):
  bert = ARCHS["bert"]

  def config(size: int, tied: bool) -> EncDecConfig:
    hub = {**bert.PRESETS["tiny"], **SHAPE, "tie_word_embeddings": tied}

    def side(role: str, rows: int) -> StackConfig:
      return bert.stack_config({**hub, "vocab_size": rows}, role)

    sides = side("encoder", 37), side("decoder", size)
    return EncDecConfig(*sides, vocab_multiple=16)

  for tied, size in ((True, 45), (False, 45), (False, 31), (False, 49)):
    old, new = config(37, tied), config(size, tied)
    # Whatever stood in the padding of the old one.
    params = random_params(param_shapes(FlaxEncoderDecoderModule(old)), 0.1)
    rows = NewRows("normal", jax.random.key(1), 0.1)
    tree = resize_vocabulary(params, old, new, rows)
    shapes = jax.tree.map(
      jnp.shape, param_shapes(FlaxEncoderDecoderModule(new))
    )
    assert jax.tree.map(jnp.shape, tree) == shapes
    flat = traverse_util.flatten_dict(tree, sep="/")
    table = np.asarray(flat["decoder/embeddings/tokens/embedding"])
    assert not table[size:].any() and table[:size].any(axis=1).all()
    if not tied:
      kernel = np.asarray(flat["decoder/head/kernel"])
      assert not kernel[:, size:].any() and kernel[:, :size].any(axis=0).all()


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"side": "both", "new_num_tokens": 0}, "must be a positive integer"),
    ({"side": "left"}, "side='left' must be"),
    ({"side": "encoder", "init": "zeros"}, "must be one of mean, normal"),
    ({"side": "encoder", "init": "normal"}, r"pass key=jax\.random\.key"),
    ({"side": "encoder", "init_std": 0.1}, "leave key and init_std out"),
    ({"side": "decoder", "new_num_tokens": 4},
     r"the id 4 .* vocabulary of 4 .*first set model\.config\.eos_token_id"),
    ({"side": "both", "new_num_tokens": 3}, r"model\.config\.\w+ \(now from"),
  ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_changes_nothing(make, kwargs, message):
  model = make()
  before = model.params
  with pytest.raises(ValueError, match=message):
    model.resize_token_embeddings(**{"new_num_tokens": 45, **kwargs})
  assert model.params is before and model.config.decoder.vocab_size == 37
  model.generation_config.suppress_tokens = [7, 33]
  with pytest.raises(ValueError, match=r"id 33 .*suppress_tokens"):
    model.resize_token_embeddings(31, side="decoder")
  model.generation_config.suppress_tokens = None
  model.config.encoder.pad_token_id = 36
  with pytest.raises(ValueError, match=r"config\.encoder\.pad_token_id"):
    model.resize_token_embeddings(31, side="encoder")
