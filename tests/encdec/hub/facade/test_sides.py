"""Composing a pair from models of one side each, and reading configs."""

import json
import os

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import traverse_util

from encdec import FlaxEncoderDecoderModel
from encdec.hub import (
  HubError,
  LoadingError,
  WeightFileError,
  compose_config,
  decoder_bos,
  encdec_config,
  generation_config_of,
  initial_params,
  load_params,
  load_side_config,
  set_dropout,
  set_init_std,
  token_sources,
)
from encdec.hub.weights import tensor_map
from encdec.model import FlaxEncoderDecoderModule, init_params

compose = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained
BERT = {
  "vocab_size": 37,
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 40,
}
NARROW = {**BERT, "embedding_size": 12}
DISTILBERT = {
  "vocab_size": 37,
  "dim": 16,
  "n_layers": 1,
  "n_heads": 2,
  "hidden_dim": 24,
}
GPT2 = {"vocab_size": 41, "n_embd": 16, "n_layer": 1, "n_head": 2}
CLASSES = {
  "bert": (transformers.BertModel, transformers.BertConfig, BERT),
  "bert-masked": (transformers.BertForMaskedLM, transformers.BertConfig, BERT),
  "bert-pretraining": (
    transformers.BertForPreTraining,
    transformers.BertConfig,
    BERT,
  ),
  "bert-classifier": (
    transformers.BertForSequenceClassification,
    transformers.BertConfig,
    BERT,
  ),
  "roberta-masked": (
    transformers.RobertaForMaskedLM,
    transformers.RobertaConfig,
    BERT,
  ),
  "electra-pretraining": (
    transformers.ElectraForPreTraining,
    transformers.ElectraConfig,
    NARROW,
  ),
  "electra-masked": (
    transformers.ElectraForMaskedLM,
    transformers.ElectraConfig,
    NARROW,
  ),
  "distilbert-masked": (
    transformers.DistilBertForMaskedLM,
    transformers.DistilBertConfig,
    DISTILBERT,
  ),
  "albert-masked": (
    transformers.AlbertForMaskedLM,
    transformers.AlbertConfig,
    NARROW,
  ),
  "albert-pretraining": (
    transformers.AlbertForPreTraining,
    transformers.AlbertConfig,
    NARROW,
  ),
  "prelayernorm-masked": (
    transformers.RobertaPreLayerNormForMaskedLM,
    transformers.RobertaPreLayerNormConfig,
    BERT,
  ),
  "gpt2": (transformers.GPT2Model, transformers.GPT2Config, GPT2),
  "gpt2-lm": (transformers.GPT2LMHeadModel, transformers.GPT2Config, GPT2),
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
  """Folders that PyTorch wrote, and their models, by the names above."""
  torch.manual_seed(0)
  made = {}
  for name, (model_class, config_class, values) in CLASSES.items():
    folder = tmp_path_factory.mktemp(name)
    model = model_class(config_class(**values, bos_token_id=3, eos_token_id=4))
    model.save_pretrained(folder)
    made[name] = (str(folder), model)
  return made


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


def test_cross_attention_is_the_modules_init(saved):
  one, two, other = (
    compose(saved["bert"][0], saved["gpt2-lm"][0], seed=seed)
    for seed in (0, 0, 1)
  )
  drawn = init_params(one.module, jax.random.key(0))

  def cross(params):
    return params["decoder"]["layers"]["cross_attention"]["query"]["kernel"]

  np.testing.assert_array_equal(cross(one.params), cross(two.params))
  np.testing.assert_allclose(cross(one.params), cross(drawn), rtol=1e-6)
  assert not np.array_equal(cross(one.params), cross(other.params))


def test_half_a_cross_attention_is_an_error(saved, tmp_path):
  config = transformers.GPT2Config(**GPT2, add_cross_attention=True)
  model = transformers.GPT2LMHeadModel(config)
  model.save_pretrained(tmp_path)
  report = compose(saved["bert"][0], str(tmp_path)).loading_report
  assert not report.initialised
  state = model.state_dict()
  del state["transformer.h.0.crossattention.q_attn.weight"]
  model.save_pretrained(tmp_path, state_dict=state)
  with pytest.raises(LoadingError, match=r"lacks decoder.*q_attn\.weight"):
    compose(saved["bert"][0], str(tmp_path))


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


def test_initial_params_draws_a_side_without_a_name(saved):
  config = encdec_config(
    compose_config(
      load_side_config(saved["bert"][0]), load_side_config(saved["gpt2-lm"][0])
    ),
    vocab_multiple=16,
  )
  module = FlaxEncoderDecoderModule(config)
  key = jax.random.key(2)
  placed = []

  def place(path, leaf):
    placed.append(path)
    return leaf

  params, report = initial_params(
    module, key, encoder=saved["bert"][0], decoder=None, place=place
  )
  drawn = init_params(module, key)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    params["decoder"],
    drawn["decoder"],
  )
  assert set(placed) == set(traverse_util.flatten_dict(drawn, sep="/"))
  assert set(report.initialised) == set(report.expected)
  table = params["encoder"]["embeddings"]["tokens"]["embedding"]
  wanted = saved["bert"][1].embeddings.word_embeddings.weight.detach()
  np.testing.assert_array_equal(table[:37], wanted)
  assert table.shape == (48, 16) and not table[37:].any()


def test_presets_have_no_special_ids_of_others():
  config = load_side_config("gpt2:tiny")
  assert config.vocab_size == 600 and config.eos_token_id is None
  hub = compose_config(load_side_config("bert:tiny"), config)
  assert decoder_bos(hub) is None
  assert [source.end for source in token_sources(hub)] == [None, None]


def test_a_config_without_a_start_token_has_none(tmp_path):
  """PyTorch's config of Pegasus has no `bos_token_id` at all."""
  pegasus = load_side_config("pegasus:tiny")
  del pegasus.__dict__["bos_token_id"]
  assert not hasattr(pegasus, "bos_token_id")
  hub = compose_config(load_side_config("bert:tiny"), pegasus)
  assert decoder_bos(hub) is None


@pytest.mark.parametrize(
  ("name", "error", "message"),
  [
    ("bert:huge", ValueError, "bert:huge is no preset"),
    ("nobody/no-such-model", HubError, "'nobody/no-such-model' is no folder"),
    ("a/b/c", HubError, "'a/b/c': there is no such folder"),
    ("bert-tiny", HubError, r"did you mean the preset 'bert:tiny', which has"),
    ("bert_tiny", HubError, "did you mean the preset 'bert:tiny'"),
    ("BERT:tiny", HubError, "did you mean the preset 'bert:tiny'"),
    ("bret:tiny", HubError, "did you mean the preset 'bert:tiny'"),
    ("bert/tiny", HubError, "did you mean the preset 'bert:tiny'"),
    ("gpt-2:tiny", HubError, "did you mean the preset 'gpt2:tiny'"),
    ("xlm-roberta-base", HubError, "did you mean the preset 'xlm-roberta:base"),
  ],
)
def test_a_name_that_leads_nowhere_is_named(name, error, message):
  with pytest.raises(error, match=message):
    load_side_config(name)


@pytest.mark.parametrize(
  "name", ["google-bert/bert-base-uncased", "facebook/bart-large-cnn", "./b"]
)
def test_a_name_that_is_like_no_preset_gets_no_suggestion(name):
  with pytest.raises(HubError) as caught:
    load_side_config(name)
  assert "preset" not in str(caught.value)


def test_a_folder_that_is_named_like_a_preset_gets_no_suggestion(
  tmp_path, monkeypatch
):
  (tmp_path / "bert-tiny").mkdir()
  monkeypatch.chdir(tmp_path)
  with pytest.raises(HubError, match=r"holds no config\.json; pass .* Hub id$"):
    load_side_config("bert-tiny")


def _config_folder(folder, values):
  (folder / "config.json").write_text(
    values if isinstance(values, str) else json.dumps(values)
  )
  return str(folder)


@pytest.mark.parametrize(
  ("values", "error", "message"),
  [
    ({"model_type": "t5"}, ValueError, "model_type 't5' is no side"),
    ({}, ValueError, "model_type None"),
    ({"model_type": "encoder-decoder"}, ValueError, "load a pair with"),
    ("{", HubError, "is no JSON"),
    ("[]", HubError, "holds no JSON object"),
  ],
)
def test_a_config_that_is_no_sides_is_refused(tmp_path, values, error, message):
  with pytest.raises(error, match=message):
    load_side_config(_config_folder(tmp_path, values))


def test_an_empty_folder_is_refused(tmp_path):
  with pytest.raises(HubError, match=r"holds no config\.json"):
    load_side_config(str(tmp_path))
  with pytest.raises(ValueError, match="is no encoder-decoder; compose one"):
    FlaxEncoderDecoderModel.from_pretrained(
      _config_folder(tmp_path, {"model_type": "bert"})
    )


def test_old_config_files_are_read(tiny, tmp_path):
  tiny.save_pretrained(tmp_path)
  path = tmp_path / "config.json"
  values = json.loads(path.read_text())
  values["model_type"] = "encoder_decoder"
  values["max_length"] = 23
  path.write_text(json.dumps(values))
  (tmp_path / "generation_config.json").unlink()
  model = FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  assert model.generation_config.max_length == 23
  assert model.config.model_type == "encoder-decoder"
  values["tie_encoder_decoder"] = True
  path.write_text(json.dumps(values))
  with pytest.raises(ValueError, match=r"share='all'.*name \(bert, gpt2\)"):
    FlaxEncoderDecoderModel.from_pretrained(tmp_path)


def test_set_dropout_and_init_std():
  for name in ("bert:tiny", "gpt2:tiny", "bart:tiny", "xglm:tiny"):
    config = load_side_config(name)
    set_dropout(config, 0.25)
    set_init_std(config, 0.5)
    role = "encoder" if name == "bert:tiny" else "decoder"
    other = load_side_config("bert:tiny")
    pair = (config, other) if role == "encoder" else (other, config)
    side = getattr(encdec_config(compose_config(*pair)), role)
    rates = (
      side.embedding_dropout,
      side.residual_dropout,
      side.mlp_dropout,
      side.attention_dropout,
    )
    assert rates == (0.25,) * 4 and side.init_std == 0.5
    inner = hasattr(config, "activation_dropout")
    assert side.activation_dropout == (0.25 if inner else 0.0)


def test_a_hub_cache_with_shards_and_links_is_read(tiny, tmp_path):
  """The Hub's cache: a snapshot of links into a folder of blobs."""
  source = tmp_path / "source"
  tiny.save_pretrained(source, max_shard_size="10KB")
  root = tmp_path / "cache" / "models--somebody--pair"
  snapshot = root / "snapshots" / "0123456789abcdef"
  for folder in (root / "refs", root / "blobs", snapshot):
    folder.mkdir(parents=True)
  (root / "refs" / "main").write_text("0123456789abcdef")
  for number, path in enumerate(sorted(source.iterdir())):
    blob = root / "blobs" / str(number)
    blob.write_bytes(path.read_bytes())
    os.symlink(f"../../blobs/{number}", snapshot / path.name)
  # The tests' environment is offline, which is enough to read a cache.
  (snapshot / "generation_config.json").rename(tmp_path / "later")
  where: dict = {"cache_dir": str(tmp_path / "cache")}
  assert generation_config_of("somebody/pair", **where) is None
  FlaxEncoderDecoderModel.from_pretrained("somebody/pair", **where)
  (tmp_path / "later").rename(snapshot / "generation_config.json")
  FlaxEncoderDecoderModel.from_pretrained(
    source, config="somebody/pair", **where
  )
  where["local_files_only"] = True
  model = FlaxEncoderDecoderModel.from_pretrained("somebody/pair", **where)
  jax.tree.map(np.testing.assert_array_equal, model.params, tiny.params)
  params, _ = load_params(tiny.module, "somebody/pair", **where)
  jax.tree.map(np.testing.assert_array_equal, params, tiny.params)
  assert generation_config_of("somebody/pair", **where) is not None
  next(snapshot.glob("model-00002-of-*")).unlink()
  with pytest.raises(WeightFileError, match="lacks the shard model-00002-of"):
    FlaxEncoderDecoderModel.from_pretrained("somebody/pair", **where)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
  """Models of four layers, by architecture, and their folders."""
  torch.manual_seed(0)
  made = {}
  for name, model in (
    ("bert", transformers.BertModel(
      transformers.BertConfig(**{**BERT, "num_hidden_layers": 4}))),
    ("gpt2", transformers.GPT2LMHeadModel(
      transformers.GPT2Config(**{**GPT2, "n_layer": 4}))),
    ("bart", transformers.BartForConditionalGeneration(
      transformers.BartConfig(
        vocab_size=41, d_model=16, encoder_layers=2, decoder_layers=4,
        encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=40,
      ))),
  ):  # fmt: skip
    folder = str(tmp_path_factory.mktemp(name))
    model.save_pretrained(folder)
    made[name] = (folder, model)
  return made


@pytest.mark.parametrize(
  ("decoder", "leaf", "theirs"),
  [
    ("gpt2", ("mlp", "up", "bias"), "transformer.h.{}.mlp.c_fc.bias"),
    ("bart", ("mlp", "up", "bias"), "model.decoder.layers.{}.fc1.bias"),
  ],
)
def test_some_layers_make_a_smaller_side(deep, decoder, leaf, theirs):
  encoder, folder = deep["bert"][0], deep[decoder][0]
  for tensor in deep[decoder][1].parameters():
    torch.nn.init.normal_(tensor)
  deep[decoder][1].save_pretrained(folder)
  model = compose(
    encoder, folder, encoder_layers=(3, 1), decoder_layers=[0, 1, 3]
  )
  tensors = deep[decoder][1].state_dict()
  own = model.params["decoder"]["layers"]
  for name in leaf:
    own = own[name]
  expected = [tensors[theirs.format(n)].numpy() for n in (0, 1, 3)]
  np.testing.assert_array_equal(own, expected)
  rows = model.params["encoder"]["layers"]["mlp"]["up"]["kernel"]
  for row, number in zip(rows, (3, 1), strict=True):
    name = f"encoder.layer.{number}.intermediate.dense.weight"
    theirs_kernel = deep["bert"][1].state_dict()[name].numpy().T
    np.testing.assert_array_equal(row, theirs_kernel)
  assert model.config.encoder.num_hidden_layers == 2


@pytest.mark.parametrize("layers", [(), (0, 4), (-1,), "01", 2, (True,)])
def test_layers_that_are_not_there_are_refused(deep, layers):
  with pytest.raises(ValueError, match=r"decoder_layers=.*from 0 to 3"):
    compose(deep["bert"][0], deep["gpt2"][0], decoder_layers=layers)
