"""Heads that a decoder's checkpoint has, lacks, promises or names twice."""

import json
import warnings

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from encdec import FlaxEncoderDecoderModel
from encdec.hub import LoadingError, initial_params, load_params

compose = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained
SIZES: dict = {
  "vocab_size": 37,
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 40,
}
GPT2 = {"vocab_size": 41, "n_embd": 16, "n_layer": 1, "n_head": 2}
BART = {
  "vocab_size": 41,
  "d_model": 16,
  "encoder_layers": 1,
  "decoder_layers": 1,
  "encoder_attention_heads": 2,
  "decoder_attention_heads": 2,
  "encoder_ffn_dim": 24,
  "decoder_ffn_dim": 24,
  "max_position_embeddings": 40,
}
CAUSAL = {
  "bert": transformers.BertLMHeadModel,
  "roberta": transformers.RobertaForCausalLM,
  "xlm-roberta": transformers.XLMRobertaForCausalLM,
  "camembert": transformers.CamembertForCausalLM,
  "roberta-prelayernorm": transformers.RobertaPreLayerNormForCausalLM,
  "bert-generation": transformers.BertGenerationDecoder,
  "electra": transformers.ElectraForCausalLM,
  "gpt2": transformers.GPT2LMHeadModel,
  "bart": transformers.BartForCausalLM,
}


def _saved(folder, name, **values):
  """A folder that PyTorch's class of this name wrote, and the model."""
  model_class = getattr(transformers, name)
  kind = model_class.config_class.model_type
  sizes = {"gpt2": GPT2, "bart": BART}.get(kind, SIZES)
  ids = {"bos_token_id": 3, "eos_token_id": 4}
  torch.manual_seed(0)
  model = model_class(model_class.config_class(**sizes, **ids, **values))
  model.save_pretrained(folder)
  return str(folder), model


def _edit(folder, change):
  """Writes the folder's weights anew, as `change` leaves them."""
  path = f"{folder}/model.safetensors"
  tensors = load_file(path)
  change(tensors)
  save_file(tensors, path, metadata={"format": "pt"})


def _set_config(folder, **values):
  path = f"{folder}/config.json"
  with open(path, encoding="utf-8") as file:
    config = json.load(file) | values
  config = {k: v for k, v in config.items() if v is not None}
  with open(path, "w", encoding="utf-8") as file:
    json.dump(config, file)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
  return _saved(tmp_path_factory.mktemp("encoder"), "BertModel")[0]


@pytest.mark.sample(2)
@pytest.mark.parametrize(
  ("name", "values"),
  [
    ("BertModel", {}),
    ("BertForNextSentencePrediction", {}),
    ("BertForSequenceClassification", {}),
    ("BertModel", {"tie_word_embeddings": False}),
    ("RobertaModel", {}),
    ("RobertaForTokenClassification", {}),
    ("XLMRobertaModel", {}),
    ("CamembertModel", {}),
    ("RobertaPreLayerNormModel", {}),
    ("BertGenerationEncoder", {}),
    ("ElectraModel", {}),
    ("ElectraForPreTraining", {}),
    ("GPT2ForSequenceClassification", {"tie_word_embeddings": False}),
    ("BartModel", {"tie_word_embeddings": False}),
  ],
)
def test_a_head_that_is_not_promised_is_drawn(encoder, tmp_path, name, values):
  folder, saved = _saved(tmp_path, name, **values)
  with pytest.warns(UserWarning, match="holds no language-model head"):
    model = compose(encoder, folder)
  report = model.loading_report
  assert report is not None
  kind = saved.config.model_type
  as_decoder = {} if kind in ("gpt2", "bart") else {"is_decoder": True}
  _, info = CAUSAL[kind].from_pretrained(
    folder, output_loading_info=True, **as_decoder
  )
  ours = {name.removeprefix("decoder.") for name in report.heads}
  # PyTorch has two names of the bias.
  others = {"cls.predictions.bias", "cls.predictions.decoder.bias"}
  assert info["missing_keys"] - ours <= others | {"lm_head.decoder.bias"}
  assert ours <= info["missing_keys"] and ours
  assert set(report.heads) <= set(report.expected) and not report.missing
  assert model.params["decoder"]["head"]


@pytest.mark.parametrize(
  ("name", "values"),
  [
    ("GPT2Model", {}),
    ("BartModel", {}),
    ("BartForConditionalGeneration", {}),
    ("BertForMaskedLM", {}),
    ("BertForPreTraining", {}),
    ("ElectraForMaskedLM", {}),
    ("GPT2DoubleHeadsModel", {}),
  ],
)
def test_a_head_that_is_there_is_read_in_silence(
  encoder, tmp_path, name, values
):
  folder, _ = _saved(tmp_path, name, **values)
  report = compose(encoder, folder).loading_report
  assert report is not None and not report.heads and not report.missing


def _drop(*names):
  def change(tensors):
    for name in [n for n in tensors if n.startswith(names)]:
      del tensors[name]

  return change


@pytest.mark.parametrize(
  ("name", "dropped"),
  [
    ("BertForMaskedLM", "cls.predictions.transform.dense.weight"),
    ("BertForMaskedLM", "cls.predictions"),
    ("BertForPreTraining", "cls.predictions"),
    ("RobertaForCausalLM", "lm_head"),
    ("ElectraForMaskedLM", "generator_"),
    ("BertGenerationDecoder", "lm_head"),
  ],
)
def test_a_promised_head_that_lacks_is_an_error(
  encoder, tmp_path, name, dropped
):
  folder, _ = _saved(tmp_path, name)
  _edit(folder, _drop(dropped))
  match = rf"{tmp_path} lacks decoder\..*architectures \({name}\)"
  with pytest.raises(LoadingError, match=match):
    compose(encoder, folder)
  with warnings.catch_warnings():
    # Who asks for it knows of it.
    warnings.simplefilter("error")
    compose(encoder, folder, initialise_missing=True)


def test_absent_architectures_promise_nothing(encoder, tmp_path):
  folder, _ = _saved(tmp_path, "BertForMaskedLM")
  _set_config(folder, architectures=None)
  _edit(folder, _drop("cls.predictions.transform.dense.bias"))
  with pytest.raises(LoadingError, match=r"lacks .*transform\.dense\.bias"):
    compose(encoder, folder)
  _edit(folder, _drop("cls."))
  with pytest.warns(UserWarning, match="holds no language-model head"):
    compose(encoder, folder)


def test_a_body_is_always_promised(encoder, tmp_path):
  folder, _ = _saved(tmp_path, "BertModel")
  _set_config(folder, architectures=None)
  _edit(folder, _drop("encoder.layer.0.attention.self.query.weight"))
  with pytest.raises(LoadingError, match=r"lacks decoder\..*query\.weight; "):
    compose(encoder, folder)


def test_ready_models_promise_what_their_class_does(encoder, tmp_path):
  folder, _ = _saved(tmp_path, "BertForMaskedLM")
  base = transformers.BertModel.from_pretrained(folder)
  assert base.config.architectures == ["BertForMaskedLM"]
  with pytest.warns(UserWarning, match="holds no language-model head"):
    compose(encoder, decoder_model=base)


def test_a_pair_always_promises_its_head(encoder, tmp_path):
  decoder, _ = _saved(tmp_path / "decoder", "BertForMaskedLM")
  model = compose(encoder, decoder)
  model.save_pretrained(tmp_path)
  _edit(tmp_path, _drop("decoder.cls."))
  for architectures in (["EncoderDecoderModel"], None):
    _set_config(tmp_path, architectures=architectures)
    with pytest.raises(LoadingError, match=r"lacks decoder\.cls"):
      FlaxEncoderDecoderModel.from_pretrained(tmp_path)


def test_errors_advise_what_their_caller_can_do(encoder, tmp_path):
  from train.setup.initial_params import REMEDIES

  folder, _ = _saved(tmp_path, "BertForMaskedLM")
  module = compose(encoder, folder).module
  _edit(folder, _drop("cls.predictions.bias"))
  sides = {"encoder": encoder, "decoder": folder}
  key = jax.random.key(0)
  with pytest.raises(LoadingError, match="initialise_missing=True"):
    initial_params(module, key, **sides)
  with pytest.raises(LoadingError, match=r"in model\.decoder$"):
    initial_params(module, key, **sides, remedies=REMEDIES)
  with pytest.raises(LoadingError, match=r"in model\.pair"):
    load_params(module, folder, remedies=REMEDIES)


BIASES = {
  "BertLMHeadModel": "cls.predictions.",
  "RobertaForCausalLM": "lm_head.",
  "BertGenerationDecoder": "lm_head.",
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
  "held", [("bias",), ("decoder.bias",), ("bias", "decoder.bias")], ids=len
)
@pytest.mark.parametrize("name", BIASES)
def test_either_name_is_the_bias(encoder, tmp_path, name, held, tied):
  folder, saved = _saved(
    tmp_path, name, is_decoder=True, tie_word_embeddings=tied
  )
  prefix = BIASES[name]

  def change(tensors):
    _drop(f"{prefix}bias", f"{prefix}decoder.bias")(tensors)
    for number, word in enumerate(held):
      tensors[prefix + word] = torch.arange(37.0) + 100 * number

  _edit(folder, change)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    model = compose(encoder, folder)
  bias = np.asarray(model.params["decoder"]["head"]["bias"])
  if held == ("bias",) and not tied:
    # PyTorch draws the bias that it applies.
    np.testing.assert_array_equal(bias, np.arange(37.0))
    return
  theirs = type(saved).from_pretrained(folder).get_output_embeddings()
  np.testing.assert_array_equal(bias, theirs.bias.detach().numpy())
  assert bias[0] == 100 * (len(held) - 1)


@pytest.mark.parametrize(
  ("name", "aside"),
  [
    ("GPT2DoubleHeadsModel", "multiple_choice_head."),
    ("GPT2ForSequenceClassification", "score."),
    ("GPT2ForTokenClassification", "classifier."),
    ("GPT2ForQuestionAnswering", "qa_outputs."),
    ("BertForPreTraining", "cls.seq_relationship."),
    ("BertForPreTraining", "bert.pooler."),
    ("BartForQuestionAnswering", "qa_outputs."),
    ("BartForSequenceClassification", "classification_head."),
  ],
)
def test_heads_of_other_tasks_are_left_aside(encoder, tmp_path, name, aside):
  folder, saved = _saved(tmp_path, name)
  report = compose(encoder, folder).loading_report
  assert report is not None and not report.unexpected
  held = {n for n in saved.state_dict() if n.startswith(aside)}
  assert held and held <= set(report.unused)
  assert "left aside: " in report.summary()


def test_what_is_no_head_is_still_unknown(encoder, tmp_path):
  folder, _ = _saved(tmp_path, "GPT2LMHeadModel")
  for name in ("lm_head.adapter.weight", "transformer.h.0.adapter.weight"):
    extra = {name: torch.ones(2)}
    _edit(folder, lambda tensors, extra=extra: tensors.update(extra))
    with pytest.raises(LoadingError, match=f"{name}, unknown to"):
      compose(encoder, folder)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
  ("name", "matrix", "table"),
  [
    ("GPT2LMHeadModel", "lm_head.weight", "transformer.wte.weight"),
    (
      "BertForMaskedLM",
      "cls.predictions.decoder.weight",
      "bert.embeddings.word_embeddings.weight",
    ),
  ],
)
def test_a_tied_head_with_a_matrix_of_its_own_is_an_error(
  encoder, tmp_path, name, matrix, table
):
  """PyTorch reads both and leaves them untied."""
  folder, saved = _saved(tmp_path, name)

  def change(tensors):
    tensors[matrix] = tensors[table].clone()

  _edit(folder, change)
  compose(encoder, folder)
  _edit(folder, lambda tensors: tensors[matrix].add_(1))
  theirs = type(saved).from_pretrained(folder).state_dict()
  assert not torch.equal(theirs[matrix], theirs[table])
  with pytest.raises(LoadingError, match=f"{matrix} is not equal to {table}"):
    compose(encoder, folder)
  model = compose(encoder, folder, decoder_tie_word_embeddings=False)
  kernel = model.params["decoder"]["head"]["kernel"]
  np.testing.assert_array_equal(kernel, theirs[matrix].numpy().T)
