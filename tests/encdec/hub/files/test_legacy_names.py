"""Weights of Flax and TensorFlow classes are found under PyTorch's names."""

import flax.serialization
import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import FlaxEncoderDecoderModel
from encdec.hub.files import weight_files

FRAMEWORKS = ["flax", "tf"]


def _expected(old, framework):
  return np.load(old / framework / "expected.npz")


def _logits(model, expected):
  names = ("input_ids", "attention_mask", "decoder_input_ids")
  return model(*(expected[name] for name in names)).logits


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("kind", ["pair", "safetensors"])
def test_a_pair_computes_what_it_did(old, framework, kind):
  model = FlaxEncoderDecoderModel.from_pretrained(
    old / framework / f"{framework}_{kind}"
  )
  assert model.loading_report.summary() == "every tensor was read"
  expected = _expected(old, framework)
  found = _logits(model, expected)
  np.testing.assert_allclose(found, expected["pair"], atol=1e-4)
  assert np.abs(found - expected["pair"][::-1]).max() > 0.1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_halves_compute_what_they_did(old, framework):
  """The encoder lies in shards; a decoder alone had no cross-attention."""
  folder = old / framework
  model = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(
    folder / f"{framework}_encoder", folder / f"{framework}_decoder"
  )
  out = model.params["decoder"]["layers"]["cross_attention"]["out"]
  out["kernel"] = jnp.zeros_like(out["kernel"])
  expected = _expected(old, framework)
  encoded = model.encode(expected["input_ids"], expected["attention_mask"])
  np.testing.assert_allclose(
    encoded.last_hidden_state, expected["encoder"], atol=1e-4
  )
  np.testing.assert_allclose(
    _logits(model, expected), expected["decoder"], atol=1e-4
  )


def test_kernels_are_turned_without_a_copy(old):
  folder = old / "flax/flax_pair"
  raw = (folder / "flax_model.msgpack").read_bytes()
  flat = flax.traverse_util.flatten_dict(
    flax.serialization.msgpack_restore(raw), sep="."
  )
  tensors = weight_files.open_weights(folder)
  name = "encoder.encoder.layer.0.intermediate.dense"
  np.testing.assert_array_equal(
    tensors[f"{name}.weight"], flat[f"{name}.kernel"].T
  )
  again = tensors[f"{name}.weight"]
  assert np.shares_memory(again, tensors[f"{name}.weight"])
