"""What PyTorch saves we load, what we save PyTorch loads, bit for bit."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from encdec import FlaxEncoderDecoderModel
from encdec.hub import LoadingError, WeightFileError
from encdec.hub.files import weight_files

PAIRS = (
  "bert-bert",
  "bert-gpt2",
  "roberta-roberta",
  "roberta-gpt2",
  "bertgeneration-bertgeneration",
  "xlmr-camembert",
  "camembert-xlmr",
  "albert-electra",
  "electra-bert",
  "distilbert-gpt2",
  "prelayernorm-prelayernorm",
  "bert-bert-widths",
  "roberta-gpt2-widths",
  "bert-bart",
  "bert-xglm",
  "bert-mbart",
  "roberta-pegasus",
  "bert-marian",
  "bert-blenderbot",
)


def _torch_load(folder):
  model, info = transformers.EncoderDecoderModel.from_pretrained(
    folder, output_loading_info=True
  )
  assert not info["missing_keys"]
  assert not info["unexpected_keys"]
  assert not info["mismatched_keys"]
  return model


def _assert_same_tensors(found, wanted):
  assert set(found) == set(wanted)
  for name, tensor in wanted.items():
    assert found[name].dtype == tensor.dtype, name
    assert torch.equal(found[name], tensor), f"{name} is not bit-equal"


@pytest.mark.sample(4)
@pytest.mark.parametrize(
  ("name", "limit"),
  [*((name, "10GB") for name in PAIRS), ("bert-gpt2", "30KB")],
)
def test_pytorch_to_ours_and_back(pairs, tmp_path, name, limit):
  torch_model = pairs(name).torch_model
  theirs, ours = tmp_path / "theirs", tmp_path / "ours"
  torch_model.save_pretrained(theirs, max_shard_size=limit)
  model, info = FlaxEncoderDecoderModel.from_pretrained(
    theirs, output_loading_info=True
  )
  assert not any(
    info[f"{kind}_keys"]
    for kind in ("missing", "unexpected", "mismatched", "initialised")
  )
  model.save_pretrained(ours, max_shard_size=limit)
  assert (ours / weight_files.INDEX).exists() == (limit == "30KB")
  assert set(weight_files.open_weights(ours)) == set(
    weight_files.open_weights(theirs)
  )
  found = _torch_load(ours)
  _assert_same_tensors(found.state_dict(), torch_model.state_dict())


def _tied(model) -> bool:
  table = model.decoder.get_input_embeddings().weight
  return model.decoder.get_output_embeddings().weight is table


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("decoder", ["bert", "gpt2"])
def test_heads_stay_tied_and_untied(pairs, tmp_path, decoder, tie):
  config = transformers.EncoderDecoderConfig.from_dict(
    pairs(f"bert-{decoder}").torch_model.config.to_dict()
  )
  config.decoder.tie_word_embeddings = tie
  torch.manual_seed(1)
  torch_model = transformers.EncoderDecoderModel(config)
  assert _tied(torch_model) == tie
  torch_model.save_pretrained(tmp_path / "theirs")
  model = FlaxEncoderDecoderModel.from_pretrained(tmp_path / "theirs")
  assert ("kernel" in model.params["decoder"].get("head", {})) != tie
  model.save_pretrained(tmp_path / "ours")
  found = _torch_load(tmp_path / "ours")
  assert _tied(found) == tie
  _assert_same_tensors(found.state_dict(), torch_model.state_dict())


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", PAIRS)
def test_one_side_alone_is_a_model_of_its_own(pairs, tmp_path, name):
  torch_model = pairs(name).torch_model
  torch_model.save_pretrained(tmp_path / "pair")
  model = FlaxEncoderDecoderModel.from_pretrained(tmp_path / "pair")
  for part, auto in (
    ("encoder", transformers.AutoModel),
    ("decoder", transformers.AutoModelForCausalLM),
  ):
    model.save_pretrained(tmp_path / part, part=part)
    found, info = auto.from_pretrained(
      tmp_path / part, output_loading_info=True
    )
    assert not info["missing_keys"]
    # With the decoder goes the projection that its cross-attention needs.
    projection = {
      f"enc_to_dec_proj.{name}"
      for name in ("weight", "bias")
      if part == "decoder" and hasattr(torch_model, "enc_to_dec_proj")
    }
    assert set(info["unexpected_keys"]) == projection
    wanted = getattr(torch_model, part).state_dict()
    _assert_same_tensors(found.state_dict(), wanted)


def test_bfloat16_files_are_read_and_written(pairs, tmp_path):
  torch_model = pairs("bert-bert").torch_model
  half = transformers.EncoderDecoderModel(torch_model.config)
  half.load_state_dict(torch_model.state_dict())
  half = half.to(torch.bfloat16)
  half.save_pretrained(tmp_path / "theirs")
  model = FlaxEncoderDecoderModel.from_pretrained(tmp_path / "theirs")
  # Widening is exact: what comes out again is what went in.
  model.save_pretrained(tmp_path / "ours", model.to_bf16(model.params))
  found = _torch_load(tmp_path / "ours")
  assert found.dtype == torch.bfloat16
  _assert_same_tensors(found.state_dict(), half.state_dict())


@pytest.fixture
def saved(pairs, tmp_path):
  """A folder that PyTorch wrote, whose weights a test may damage."""
  pairs("bert-gpt2").torch_model.save_pretrained(tmp_path)
  return tmp_path


def _rewrite(folder, change):
  tensors = safetensors.numpy.load_file(folder / weight_files.SINGLE)
  change(tensors)
  safetensors.numpy.save_file(tensors, folder / weight_files.SINGLE)


def test_a_tensor_of_another_shape_is_named(saved):
  name = "decoder.transformer.h.1.attn.c_attn.weight"

  def cut(tensors):
    tensors[name] = np.ascontiguousarray(tensors[name][:, :-3])

  _rewrite(saved, cut)
  with pytest.raises(
    LoadingError, match=r"h\.1\.attn\.c_attn\.weight.*\[32, 93\].*\[32, 96\]"
  ):
    FlaxEncoderDecoderModel.from_pretrained(saved)
  model = FlaxEncoderDecoderModel.from_pretrained(
    saved, ignore_mismatched_sizes=True
  )
  assert model.loading_report.initialised == (name,)


def test_a_config_of_another_shape_names_tensors(saved):
  config = json.loads((saved / "config.json").read_text())
  config["encoder"]["intermediate_size"] = 64
  (saved / "config.json").write_text(json.dumps(config))
  with pytest.raises(LoadingError, match=r"encoder.*intermediate\.dense"):
    FlaxEncoderDecoderModel.from_pretrained(saved)


def test_a_config_of_far_too_many_layers_is_refused_at_once(saved):
  config = json.loads((saved / "config.json").read_text())
  config["encoder"]["num_hidden_layers"] = 3000
  (saved / "config.json").write_text(json.dumps(config))
  with pytest.raises(LoadingError, match=r"lacks .*layer\.2\..*in all"):
    FlaxEncoderDecoderModel.from_pretrained(saved)


def test_a_missing_and_an_unknown_tensor_are_named(saved):
  missing = "encoder.encoder.layer.0.output.dense.bias"
  _rewrite(saved, lambda tensors: tensors.pop(missing))
  with pytest.raises(LoadingError, match=f"lacks {missing}"):
    FlaxEncoderDecoderModel.from_pretrained(saved)
  model = FlaxEncoderDecoderModel.from_pretrained(
    saved, initialise_missing=True
  )
  assert model.loading_report.missing == (missing,)
  _rewrite(saved, lambda t: t.update({"decoder.extra": np.ones(2, np.float32)}))
  with pytest.raises(LoadingError, match=r"holds decoder\.extra"):
    FlaxEncoderDecoderModel.from_pretrained(saved, initialise_missing=True)


def test_a_truncated_file_and_a_missing_shard_are_named(pairs, saved, tmp_path):
  path = saved / weight_files.SINGLE
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(WeightFileError, match=r"model\.safetensors is truncated"):
    FlaxEncoderDecoderModel.from_pretrained(saved)
  folder = tmp_path / "sharded"
  torch_model = pairs("bert-gpt2").torch_model
  torch_model.save_pretrained(folder, max_shard_size="30KB")
  shard = sorted(folder.glob("*.safetensors"))[2]
  shard.unlink()
  with pytest.raises(WeightFileError, match=f"{shard.name} is missing"):
    FlaxEncoderDecoderModel.from_pretrained(folder)
