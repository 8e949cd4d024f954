"""A saved pair is read when its parameters are asked for, and only then."""

import concurrent.futures
import os
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from encdec import FlaxEncoderDecoderModel
from encdec.hub import WeightFileError, compose_config
from encdec.hub.weights.lazy_params import LazyParams

WEIGHTS = "model.safetensors"
SIDE = {
  "vocab_size": 37,
  "hidden_size": 16,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 40,
}
PAIRS = {
  "bert to gpt2": transformers.GPT2Config(
    vocab_size=41, n_embd=24, n_layer=2, n_head=2, n_positions=40
  ),
  "bert to bert": transformers.BertConfig(**SIDE),
  "bert to bart": transformers.BartConfig(
    vocab_size=41,
    d_model=16,
    decoder_layers=1,
    decoder_attention_heads=2,
    decoder_ffn_dim=24,
    max_position_embeddings=40,
  ),
}


@pytest.fixture
def make(random_model):
  """`make(decoder, share="none", seed=0)`: no tensor equals another."""

  def model(decoder, share="none", seed=0):
    encoder = transformers.BertConfig(**SIDE)
    return random_model(compose_config(encoder, decoder, share=share), seed)

  return model


@pytest.fixture
def folder(make, tmp_path):
  make(PAIRS["bert to gpt2"]).save_pretrained(tmp_path / "saved")
  return tmp_path / "saved"


@pytest.fixture
def unread(monkeypatch):
  """No parameters may be made."""

  def refuse(*_):
    raise AssertionError("the parameters are read")

  monkeypatch.setattr(LazyParams, "tree", refuse)


def _equal(one, other):
  first, second = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
  assert first.keys() == second.keys()
  for name, array in first.items():
    assert array.dtype == second[name].dtype
    np.testing.assert_array_equal(array, second[name], err_msg=name)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
  ("pair", "share"),
  [(pair, "none") for pair in PAIRS]
  + [("bert to bert", "embeddings"), ("bert to bert", "all")],
)
@pytest.mark.parametrize("part", [None, "encoder", "decoder"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_only_converted_is_never_read(
  make, tmp_path, request, pair, share, part, dtype
):
  """And gives the files that the parameters would give."""
  make(PAIRS[pair], share).save_pretrained(tmp_path / "saved")

  def load():
    return FlaxEncoderDecoderModel.from_pretrained(
      tmp_path / "saved", param_dtype=dtype
    )

  read = load()
  assert jax.tree.leaves(read.params)[0].dtype == jnp.dtype(dtype)
  read.save_pretrained(tmp_path / "read", part=part)
  request.getfixturevalue("unread")
  load().save_pretrained(tmp_path / "unread", part=part)
  for name in ("config.json", WEIGHTS):
    one, other = tmp_path / "read" / name, tmp_path / "unread" / name
    assert one.read_bytes() == other.read_bytes(), name


def test_a_pair_that_was_changed_is_written_as_it_is(folder, tmp_path):
  model = FlaxEncoderDecoderModel.from_pretrained(folder)
  model.params = jax.tree.map(lambda leaf: leaf + 1, model.params)
  model.save_pretrained(tmp_path / "more")
  before = load_file(folder / WEIGHTS)
  for name, array in load_file(tmp_path / "more" / WEIGHTS).items():
    np.testing.assert_array_equal(array, before[name] + 1, err_msg=name)


def test_what_is_drawn_is_written(folder, tmp_path):
  tensors = load_file(folder / WEIGHTS)
  del tensors["encoder.pooler.dense.bias"]
  save_file(tensors, folder / WEIGHTS)
  model = FlaxEncoderDecoderModel.from_pretrained(
    folder, initialise_missing=True
  )
  model.save_pretrained(tmp_path / "whole")
  found = load_file(tmp_path / "whole" / WEIGHTS)
  assert found.keys() - tensors.keys() == {"encoder.pooler.dense.bias"}


def test_saved_into_its_own_folder(folder, tmp_path):
  shutil.copytree(folder, tmp_path / "before")
  model = FlaxEncoderDecoderModel.from_pretrained(folder)
  for _ in range(2):
    model.save_pretrained(folder)
    _equal(folder, tmp_path / "before")
  expected = FlaxEncoderDecoderModel.from_pretrained(tmp_path / "before")
  jax.tree.map(np.testing.assert_array_equal, model.params, expected.params)


@pytest.mark.parametrize("use", ["read", "save"])
def test_a_file_that_was_written_into_is_refused(folder, tmp_path, use):
  model = FlaxEncoderDecoderModel.from_pretrained(folder)
  with open(folder / WEIGHTS, "r+b") as file:
    file.seek(-4, os.SEEK_END)
    file.write(b"\0\0\0\1")
  os.utime(folder / WEIGHTS, ns=(1, 1))
  with pytest.raises(WeightFileError, match="has changed since it was opened"):
    if use == "read":
      _ = model.params
    else:
      model.save_pretrained(tmp_path / "other")
  assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("gone", [True, False])
def test_a_file_that_was_replaced_is_still_there(make, folder, tmp_path, gone):
  model = FlaxEncoderDecoderModel.from_pretrained(folder)
  shutil.copytree(folder, tmp_path / "before")
  if gone:
    shutil.rmtree(folder)
  else:
    make(PAIRS["bert to gpt2"], seed=1).save_pretrained(folder)
  model.save_pretrained(tmp_path / "after")
  _equal(tmp_path / "after", tmp_path / "before")


@pytest.mark.sample(2)
@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("under", ["jit", "grad", "vmap", "eval_shape"])
def test_the_first_use_may_be_traced(folder, under, drawn):
  if drawn:
    tensors = load_file(folder / WEIGHTS)
    del tensors["encoder.pooler.dense.bias"]
    save_file(tensors, folder / WEIGHTS)
  model = FlaxEncoderDecoderModel.from_pretrained(
    folder, initialise_missing=drawn
  )
  ids = jnp.asarray([[5, 6, 7]], jnp.int32)

  def total(scale):
    return model(ids, decoder_input_ids=ids).logits.sum() * scale

  one = jnp.ones(())
  {
    "jit": lambda: jax.jit(total)(one),
    "grad": lambda: jax.grad(total)(one),
    "vmap": lambda: jax.vmap(total)(one[None]),
    "eval_shape": lambda: jax.eval_shape(total, one),
  }[under]()
  for leaf in jax.tree.leaves(model.params):
    assert not isinstance(leaf, jax.core.Tracer)
  assert np.isfinite(total(one))


def test_generation_may_be_the_first_use_and_traced(folder):
  def load():
    model = FlaxEncoderDecoderModel.from_pretrained(folder)
    model.generation_config.update(
      decoder_start_token_id=1, eos_token_id=2, pad_token_id=0, max_length=6
    )
    return model

  ids = jnp.asarray([[5, 6, 7]], jnp.int32)
  model = load()
  traced = jax.jit(lambda ids: model.generate(ids).sequences)(ids)
  plain = load().generate(ids).sequences
  np.testing.assert_array_equal(traced[:, : plain.shape[1]], plain)
  np.testing.assert_array_equal(model.generate(ids).sequences, plain)


def test_parameters_lie_where_the_pair_was_loaded(folder):
  device = jax.devices()[1]
  with jax.default_device(device):
    model = FlaxEncoderDecoderModel.from_pretrained(folder)
  assert {d for x in jax.tree.leaves(model.params) for d in x.devices()} == {
    device
  }


def test_threads_read_once(folder, monkeypatch):
  model = FlaxEncoderDecoderModel.from_pretrained(folder)
  read, real = [], LazyParams.tree

  def slow(found, place=None):
    read.append(found)
    time.sleep(0.2)
    return real(found, place)

  monkeypatch.setattr(LazyParams, "tree", slow)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    trees = list(pool.map(lambda _: model.params, range(4)))
  assert len(read) == 1 and all(tree is trees[0] for tree in trees)


@pytest.mark.parametrize(
  "options",
  [
    {"encoder_layers": (1,)},
    {
      "encoder_max_position_embeddings": 60,
      "encoder_position_extension": "repeat_last",
    },
  ],
  ids=["layers", "positions"],
)
def test_a_changed_side_is_refused(make, tmp_path, options):
  for part in ("encoder", "decoder"):
    make(PAIRS["bert to gpt2"]).save_pretrained(tmp_path / part, part=part)
  model = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(
    tmp_path / "encoder", tmp_path / "decoder", **options
  )
  os.utime(tmp_path / "encoder" / WEIGHTS, ns=(1, 1))
  with pytest.raises(WeightFileError, match="has changed since it was opened"):
    _ = model.params
