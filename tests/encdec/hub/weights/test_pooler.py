"""Encoders without a pooler, which no output of a pair depends on."""

import json

import flax.serialization
import jax
import numpy as np
import pytest
import torch
import transformers
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from encdec import FlaxEncoderDecoderModel
from encdec.hub import (
  LoadingError,
  compose_config,
  encdec_config,
  fit_pooler_to,
  initial_params,
  load_side_config,
  to_flax457,
)
from encdec.model import FlaxEncoderDecoderModule

compose = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained
load = FlaxEncoderDecoderModel.from_pretrained
SIZES: dict = {
  "vocab_size": 37,
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 40,
}
ENCODERS = {
  "bert": transformers.BertModel,
  "roberta": transformers.RobertaModel,
  "roberta-prelayernorm": transformers.RobertaPreLayerNormModel,
  "albert": transformers.AlbertModel,
}
SOURCE, TARGET = np.arange(5, 17).reshape(2, 6), np.arange(5, 13).reshape(2, 4)


@pytest.fixture(scope="module", params=ENCODERS)
def theirs(request, tmp_path_factory):
  """PyTorch's pair without a pooler, its folder, and its encoder's."""
  model_class = ENCODERS[request.param]
  torch.manual_seed(0)
  encoder = model_class(model_class.config_class(**SIZES))
  half = tmp_path_factory.mktemp("half")
  whole = tmp_path_factory.mktemp("whole")
  encoder.save_pretrained(whole)
  decoder = transformers.BertConfig(
    **SIZES, is_decoder=True, add_cross_attention=True
  )
  model = transformers.EncoderDecoderModel.from_encoder_decoder_pretrained(
    str(whole),
    decoder_model=transformers.BertLMHeadModel(decoder),
    encoder_add_pooling_layer=False,
  )
  pair = tmp_path_factory.mktemp("pair")
  model.eval().save_pretrained(pair)
  model.encoder.save_pretrained(half)
  return model, pair, half


def _poolers(folder):
  names = load_file(folder / "model.safetensors")
  return {name for name in names if "pooler" in name}


def _assert_same_logits(model, torch_model):
  with torch.no_grad():
    wanted = torch_model(
      input_ids=torch.tensor(SOURCE), decoder_input_ids=torch.tensor(TARGET)
    ).logits
  logits = model(SOURCE, decoder_input_ids=TARGET).logits
  np.testing.assert_allclose(logits, wanted, atol=1e-4)


@pytest.mark.sample(1)
@pytest.mark.parametrize("read", [False, True])
def test_a_pair_is_loaded_and_saved_without(theirs, tmp_path, read):
  torch_model, folder, _ = theirs
  model = load(folder)
  if read:
    _assert_same_logits(model, torch_model)
    assert "pooler" not in model.params["encoder"]
  report = model.loading_report
  assert not report.missing + report.unexpected + report.initialised
  model.save_pretrained(tmp_path)
  assert not _poolers(tmp_path)
  again, info = transformers.EncoderDecoderModel.from_pretrained(
    tmp_path, output_loading_info=True
  )
  dense = "" if again.config.encoder.model_type == "albert" else ".dense"
  assert info["missing_keys"] == {
    f"encoder.pooler{dense}.weight",
    f"encoder.pooler{dense}.bias",
  }
  assert not info["unexpected_keys"] and not info["mismatched_keys"]
  _assert_same_logits(load(tmp_path), again.eval())


@pytest.mark.sample(1)
def test_its_config_makes_the_same_tree(theirs):
  model = load(theirs[1])
  values = json.loads(model.config.to_json_string(use_diff=False))
  config = transformers.EncoderDecoderConfig.from_dict(values)
  fresh = FlaxEncoderDecoderModel(config, _do_init=False)
  assert fresh.required_params == model.required_params
  fresh = FlaxEncoderDecoderModel(config)
  fresh.params = model.params
  resized = fresh.resize_token_embeddings(40, side="encoder")
  assert "pooler" not in resized["encoder"]


@pytest.mark.sample(1)
def test_halves_are_loaded_and_saved_without(theirs, tmp_path):
  _, pair, half = theirs
  model = compose(half, decoder_model=load(pair))
  assert "pooler" not in model.params["encoder"]
  model.save_pretrained(tmp_path, part="encoder")
  assert not _poolers(tmp_path)
  _, info = transformers.AutoModel.from_pretrained(
    tmp_path, add_pooling_layer=False, output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  ours = compose(tmp_path, decoder_model=model)
  jax.tree.map(np.testing.assert_array_equal, ours.params, model.params)
  ready = compose(encoder_model=ours, decoder_model=ours)
  assert ready.required_params == ours.required_params


def test_a_part_of_a_pooler_is_a_damaged_file(theirs, tmp_path):
  model = load(theirs[1])
  model.save_pretrained(tmp_path)
  path = tmp_path / "model.safetensors"
  name = "encoder.pooler.weight"
  if theirs[0].config.encoder.model_type != "albert":
    name = "encoder.pooler.dense.weight"
  tensors = load_file(path) | {name: np.ones((16, 16), np.float32)}
  save_file(tensors, path, metadata={"format": "pt"})
  with pytest.raises(LoadingError, match=r"lacks encoder\.pooler\S*bias"):
    load(tmp_path)
  # The file's word counts, not what config.json said of another file.
  bias = name.replace("weight", "bias")
  tensors |= {bias: np.ones(16, np.float32)}
  save_file(tensors, path, metadata={"format": "pt"})
  again = load(tmp_path)
  assert "pooler" in again.params["encoder"]
  assert not hasattr(again.config.encoder, "has_pooler")


@pytest.mark.sample(1)
@pytest.mark.parametrize("limit", ["10GB", "10KB"])
def test_other_files_without_a_pooler_are_read(theirs, tmp_path, limit):
  torch_model, folder, _ = theirs
  torch_model.save_pretrained(tmp_path, max_shard_size=limit)
  assert ("pooler" in load(tmp_path).params["encoder"]) is False
  for file in tmp_path.glob("model*"):
    file.unlink()
  torch.save(torch_model.state_dict(), tmp_path / "pytorch_model.bin")
  pickled = load(tmp_path)
  assert pickled.required_params == load(folder).required_params


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
  """Folders by name; "masked" is of a class without a pooler."""
  torch.manual_seed(0)
  made = {}
  for name, model in (
    ("bert", transformers.BertModel(transformers.BertConfig(**SIZES))),
    (
      "bare",
      transformers.BertModel(
        transformers.BertConfig(**SIZES), add_pooling_layer=False
      ),
    ),
    ("masked", transformers.BertForMaskedLM(transformers.BertConfig(**SIZES))),
    ("electra", transformers.ElectraModel(transformers.ElectraConfig(**SIZES))),
  ):
    made[name] = tmp_path_factory.mktemp(name)
    model.save_pretrained(made[name])
  return made


@pytest.mark.parametrize(
  ("encoder", "asked", "has", "drawn"),
  [
    ("bert", None, True, False),
    ("bert", True, True, False),
    ("bert", False, False, False),
    ("bare", None, False, False),
    ("bare", True, True, True),
    ("bare", False, False, False),
    # As PyTorch composes it.
    ("masked", None, True, True),
    ("masked", False, False, False),
  ],
)
def test_the_keyword_is_followed(sides, encoder, asked, has, drawn):
  keywords = {} if asked is None else {"encoder_add_pooling_layer": asked}
  model = compose(sides[encoder], sides["masked"], **keywords)
  assert ("pooler" in model.params["encoder"]) is has
  report = model.loading_report
  assert any("pooler" in name for name in report.initialised) is drawn
  left = any("pooler" in name for name in report.unused)
  assert left is (encoder == "bert" and not has)


@pytest.mark.parametrize(
  ("encoder", "keywords", "message"),
  [
    ("bert", {"decoder_add_pooling_layer": False}, "a decoder has no pooler"),
    ("bert", {"encoder_add_pooling_layer": 0}, "=0 must be a bool"),
    ("electra", {"encoder_add_pooling_layer": True}, "electra has no pooler"),
  ],
)
def test_the_keyword_is_refused_where_pytorch_refuses_it(
  sides, encoder, keywords, message
):
  with pytest.raises(TypeError, match=message):
    compose(sides[encoder], sides["masked"], **keywords)
  if 0 not in keywords.values() or "decoder_add_pooling_layer" in keywords:
    with pytest.raises(TypeError, match="add_pooling_layer"):
      transformers.EncoderDecoderModel.from_encoder_decoder_pretrained(
        sides[encoder], sides["masked"], **keywords
      )


@pytest.mark.sample(1)
@pytest.mark.parametrize("share", ["embeddings", "all"])
def test_sides_that_share_do_without(sides, tmp_path, share):
  model = compose(
    sides["masked"],
    sides["masked"],
    share=share,
    encoder_add_pooling_layer=False,
  )
  model.save_pretrained(tmp_path)
  again = load(tmp_path)
  assert again.module.config.share == share
  jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
  assert "pooler" not in again.params["encoder"]


def test_a_run_starts_without(sides):
  configs = {name: load_side_config(str(sides[name])) for name in sides}
  fit_pooler_to(configs["bare"], str(sides["bare"]))
  hub = compose_config(configs["bare"], configs["masked"])
  module = FlaxEncoderDecoderModule(encdec_config(hub))
  params, report = initial_params(
    module,
    jax.random.key(0),
    encoder=str(sides["bare"]),
    decoder=str(sides["masked"]),
  )
  assert not any(
    "pooler" in path for path in traverse_util.flatten_dict(params, sep="/")
  )
  assert not any("pooler" in name for name in report.expected)


def test_a_file_of_flax_without_a_pooler_is_read(sides, tmp_path):
  model = compose(sides["bare"], sides["masked"])
  model.save_pretrained(tmp_path)
  (tmp_path / "model.safetensors").unlink()
  tree = to_flax457(model.params, model.config)
  assert "pooler" not in tree["encoder"]
  path = tmp_path / "flax_model.msgpack"
  path.write_bytes(flax.serialization.to_bytes(tree))
  again = load(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
