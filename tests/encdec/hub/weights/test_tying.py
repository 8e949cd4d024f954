"""Shared sides: composed, saved under both names, found again."""

import copy
import json
import re

import flax.serialization
import h5py
import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from encdec import FlaxEncoderDecoderModel
from encdec.hub import LoadingError, from_flax457, to_flax457

compose = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained
load = FlaxEncoderDecoderModel.from_pretrained
SHAPE = {
  "vocab_size": 37,
  "hidden_size": 16,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 40,
  "bos_token_id": 3,
  "eos_token_id": 4,
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
  """A folder with a PyTorch BERT, and another one like it."""
  folders = []
  for seed in (0, 1):
    torch.manual_seed(seed)
    folders.append(str(tmp_path_factory.mktemp("bert")))
    model = transformers.BertForMaskedLM(transformers.BertConfig(**SHAPE))
    model.save_pretrained(folders[-1])
  return folders


@pytest.fixture(scope="module", params=["embeddings", "all"])
def shared(request, bert):
  """A composed model, and what its sides share."""
  return compose(bert[0], bert[0], share=request.param), request.param


def _leaves(tree):
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}


def _assert_equal(one, other):
  one, other = _leaves(one), _leaves(other)
  assert one.keys() == other.keys()
  for path, leaf in one.items():
    np.testing.assert_array_equal(leaf, other[path], err_msg=path)


def _ids():
  rng = np.random.default_rng(0)
  return rng.integers(5, 37, (2, 6)), rng.integers(5, 37, (2, 4))


def test_pytorch_reads_both_names(shared, tmp_path):
  model, share = shared
  # Values that no checkpoint has, so that they come from what is stored once.
  params = jax.tree.map(lambda leaf: leaf + 0.01, model.params)
  model.save_pretrained(tmp_path, params)
  theirs, info = transformers.EncoderDecoderModel.from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  source, target = _ids()
  with torch.no_grad():
    expected = theirs.eval()(
      input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(target)
    ).logits
  logits = model(source, decoder_input_ids=target, params=params).logits
  np.testing.assert_allclose(logits, expected, atol=1e-4)
  tied = json.loads((tmp_path / "config.json").read_text())
  assert tied["tie_encoder_decoder"] is (True if share == "all" else None)
  again = load(tmp_path)
  assert again.module.config.share == share
  fresh = FlaxEncoderDecoderModel(again.config, _do_init=False)
  assert fresh.module.config.share == share
  _assert_equal(again.params, params)
  report = again.loading_report
  assert "stored once" in report.summary()
  assert "decoder.bert.embeddings.word_embeddings.weight" in report.shared


def test_equal_sides_are_found_unless_they_are_said_to_be_apart(bert, tmp_path):
  model = compose(bert[0], bert[0])
  assert model.module.config.share == "none"
  model.save_pretrained(tmp_path)
  assert load(tmp_path).module.config.share == "none"
  path = tmp_path / "config.json"
  values = json.loads(path.read_text())
  assert values.pop("tie_encoder_decoder") is False
  path.write_text(json.dumps(values))
  found = load(tmp_path)
  assert found.module.config.share == "all"
  _assert_equal(found.params, compose(bert[0], bert[0], share="all").params)


def _write_pickle(folder, model, tensors):
  """As a tied model of old: both names, one storage of what is equal."""
  held = {}
  state = {
    name: held.setdefault(array.tobytes(), torch.tensor(array))
    for name, array in tensors.items()
  }
  assert len(held) < len(state)
  torch.save(state, folder / "pytorch_model.bin")


def _write_msgpack(folder, model, tensors):
  tree = jax.tree.map(np.asarray, to_flax457(model.params, model.config))
  (folder / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(tree))


def _write_h5(folder, model, tensors):
  """As the fixtures of TensorFlow's classes are laid out."""
  with h5py.File(folder / "tf_model.h5", "w") as file:
    for name, array in tensors.items():
      side, _, inner = name.partition(".")
      *parents, leaf = inner.split(".")
      if parents[-1] == "LayerNorm":
        leaf = {"weight": "gamma", "bias": "beta"}[leaf]
      elif parents[-1].endswith("_embeddings"):
        leaf = "embeddings"
      elif leaf == "weight":
        leaf, array = "kernel", array.T
      path = "/".join(["bert"] * (side == "encoder") + parents)
      path = re.sub(r"layer/(\d+)", r"layer_._\1", path).replace(
        "cls", "x___cls"
      )
      whole = f"{side}/tf_encoder_decoder_model/{side}/{path}/{leaf}:0"
      file.create_dataset(whole, data=array)


@pytest.mark.parametrize("write", [_write_pickle, _write_msgpack, _write_h5])
def test_every_format_is_found_to_share(shared, write, tmp_path):
  model, share = shared
  rng = np.random.default_rng(0)
  # Each array another: zeros would be equal wherever they lie.
  params = jax.tree.map(
    lambda leaf: leaf + rng.normal(size=leaf.shape).astype(np.float32),
    model.params,
  )
  model = copy.copy(model)
  model.params = params
  model.save_pretrained(tmp_path)
  file = tmp_path / "model.safetensors"
  tensors = safetensors.numpy.load_file(file)
  file.unlink()
  write(tmp_path, model, tensors)
  path = tmp_path / "config.json"
  values = json.loads(path.read_text())
  for name in ("tie_encoder_decoder", "share"):
    values.pop(name, None)
  path.write_text(json.dumps(values))
  found = load(tmp_path)
  assert found.module.config.share == share
  _assert_equal(found.params, params)
  count = sum(leaf.size for leaf in jax.tree.leaves(found.params))
  both = sum(array.size for array in tensors.values())
  names = found.loading_report.shared
  assert names and count == both - sum(tensors[name].size for name in names)


def test_a_tied_config_needs_one_name_of_each_tensor(bert, tmp_path):
  model = compose(bert[0], bert[0], tie_encoder_decoder=True)
  model.save_pretrained(tmp_path)
  file = tmp_path / "model.safetensors"
  tensors = safetensors.numpy.load_file(file)
  for side in ("encoder.", "decoder.bert."):
    names = set(model.params and load(tmp_path).loading_report.shared)
    other = {"encoder.": "decoder.bert.", "decoder.bert.": "encoder."}[side]
    dropped = {
      name if side == "decoder.bert." else name.replace(other, side)
      for name in names
    }
    kept = {k: v for k, v in tensors.items() if k not in dropped}
    assert len(kept) == len(tensors) - len(names)
    safetensors.numpy.save_file(kept, file)
    found = load(tmp_path)
    assert found.module.config.share == "all"
    _assert_equal(found.params, model.params)
    safetensors.numpy.save_file(tensors, file)


def test_sides_that_a_config_wrongly_ties_are_kept_apart(bert, tmp_path):
  model = compose(bert[0], bert[1])
  model.save_pretrained(tmp_path)
  path = tmp_path / "config.json"
  values = json.loads(path.read_text()) | {"tie_encoder_decoder": True}
  path.write_text(json.dumps(values))
  with pytest.warns(UserWarning, match="tensors differ: they share 'none'"):
    found = load(tmp_path)
  _assert_equal(found.params, model.params)


@pytest.mark.parametrize("share", ["embeddings", "all"])
def test_two_checkpoints_cannot_be_one(bert, share):
  with pytest.raises(LoadingError, match=r"is not equal to encoder\..*share="):
    compose(bert[0], bert[1], share=share)


def test_sharing_is_refused_by_name(bert):
  with pytest.raises(ValueError, match="share='some' must be one of"):
    compose(bert[0], bert[0], share="some")
  with pytest.raises(ValueError, match=r"share='all'.*num_layers \(2, 1\)"):
    compose(bert[0], bert[0], share="all", decoder_num_hidden_layers=1)


def test_parts_and_old_trees_hold_what_is_shared(shared, tmp_path):
  model, _ = shared
  model.save_pretrained(tmp_path, part="decoder")
  theirs, info = transformers.BertLMHeadModel.from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  table = model.params["encoder"]["embeddings"]["tokens"]["embedding"]
  own = theirs.bert.embeddings.word_embeddings.weight
  np.testing.assert_array_equal(own.detach(), table)
  old = to_flax457(model.params, model.config)
  assert "word_embeddings" in old["decoder"]["bert"]["embeddings"]
  _assert_equal(from_flax457(old, model.config), model.params)


def test_a_shared_model_generates_as_one_that_is_not(shared, bert):
  model, _ = shared
  apart = compose(bert[0], bert[0])
  source, _ = _ids()
  options = {"max_length": 8, "num_beams": 2, "decoder_start_token_id": 3}
  one, other = (
    m.generate(source, eos_token_id=4, pad_token_id=0, **options)
    for m in (model, apart)
  )
  np.testing.assert_array_equal(one.sequences, other.sequences)
