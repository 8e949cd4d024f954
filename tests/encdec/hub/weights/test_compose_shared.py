"""A side without a checkpoint takes what it shares from the other side."""

import jax
import numpy as np
import pytest
import transformers

from encdec.config import Share
from encdec.hub import (
  LoadingError,
  compose_config,
  encdec_config,
  initial_params,
  load_side_config,
  save_folder,
)
from encdec.model import FlaxEncoderDecoderModule

TABLE = ("embeddings", "tokens", "embedding")


def _module(encoder, decoder, share, **of_encoder):
  sides = [load_side_config(folder) for folder in (encoder, decoder)]
  sides[0].update(of_encoder)
  pair = compose_config(*sides)
  config = encdec_config(pair, share=share, vocab_multiple=16)
  return pair, FlaxEncoderDecoderModule(config)


def _leaf(params, *path):
  for name in path:
    params = params[name]
  return np.asarray(params)


def _of_pytorch(folder, *, decoder):
  """PyTorch's pair, which finds all its tensors in the folder."""
  model, info = transformers.EncoderDecoderModel.from_pretrained(
    folder, output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  side = model.decoder if decoder else model.encoder
  return side.get_input_embeddings().weight.detach().numpy()


def test_a_random_encoder_of_another_kind_has_the_decoders_table(
  saved, tmp_path
):
  """Rothe et al.'s RND2GPT: BERT's shape with GPT-2's vocabulary."""
  folder, theirs = saved["gpt2-lm"]
  pair, module = _module(saved["bert"][0], folder, "embeddings", vocab_size=41)
  key = jax.random.key(0)
  params, report = initial_params(module, key, encoder=None, decoder=folder)
  wanted = theirs.transformer.wte.weight.detach().numpy()
  table = _leaf(params, "encoder", *TABLE)
  np.testing.assert_array_equal(table[:41], wanted)
  assert (
    not table[41:].any() and "tokens" not in params["decoder"]["embeddings"]
  )
  assert report.shared == ("decoder.transformer.wte.weight",)
  assert "encoder.embeddings.word_embeddings.weight" not in report.initialised
  assert "stored once: decoder.transformer.wte.weight" in report.summary()
  # What is not shared is the decoder's own, and the encoder's is drawn.
  np.testing.assert_array_equal(
    _leaf(params, "decoder", "embeddings", "positions", "embedding"),
    theirs.transformer.wpe.weight.detach().numpy(),
  )
  assert "encoder.embeddings.position_embeddings.weight" in report.initialised
  save_folder(tmp_path, params, pair)
  for decoder in (False, True):
    np.testing.assert_array_equal(
      _of_pytorch(tmp_path, decoder=decoder), wanted
    )


@pytest.mark.parametrize("read", ["encoder", "decoder"])
def test_either_sides_layers_are_shared_where_the_other_is_random(saved, read):
  folder, theirs = saved["bert"]
  _, module = _module(folder, folder, "all")
  names = {"encoder": None, "decoder": None, read: folder}
  params, report = initial_params(module, jax.random.key(0), **names)
  np.testing.assert_array_equal(
    _leaf(params, "encoder", *TABLE)[:37],
    theirs.embeddings.word_embeddings.weight.detach(),
  )
  up = theirs.encoder.layer[0].intermediate.dense.weight.detach().numpy()
  np.testing.assert_array_equal(
    _leaf(params, "encoder", "layers", "mlp", "up", "kernel")[0], up.T
  )
  assert set(params["decoder"]["layers"]) == {
    "cross_attention",
    "cross_attention_norm",
  }
  drawn = [n for n in report.initialised if "intermediate" in n]
  assert not drawn and set(report.initialised) <= set(report.expected)
  # The encoder's own alone: a decoder's file has no place for it.
  pooler = any(n.startswith("encoder.pooler") for n in report.initialised)
  assert pooler == (read == "decoder")


def test_two_checkpoints_of_unequal_tables_share_none(saved, tmp_path):
  folder, theirs = saved["bert"]
  other = transformers.BertLMHeadModel(theirs.config)
  other.save_pretrained(tmp_path)
  _, module = _module(folder, str(tmp_path), Share.EMBEDDINGS)
  with pytest.raises(LoadingError, match="share='embeddings'"):
    initial_params(
      module, jax.random.key(0), encoder=folder, decoder=str(tmp_path)
    )
